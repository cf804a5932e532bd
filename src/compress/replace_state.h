#pragma once
// What the training of a block in place of a run goes on from: compress/replace-state.h5, replaced whole every
// checkpoint.every steps. Every number is kept to the bit, so that a run that was killed ends with the same bytes as
// one that was not.

#include <filesystem>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "compress/journal.h"
#include "core/tensor.h"

namespace tessera {

/// Losses at one place of the training.
struct ReplacePoint {
  int64_t phase = 0, step = 0;  // of the phase, done
  double train = 0;             // mean of the steps since the point before; 0 at a phase's beginning
  double validation = 0;
};

struct ReplaceState {
  int64_t phase = 0, step = 0;                            // steps of this phase that are done
  int64_t evaluated = -1;                                 // the step of this phase that was evaluated last
  double best = std::numeric_limits<double>::infinity();  // the lowest validation loss of this phase
  double train_sum = 0, train_count = 0;                  // of training losses since the last evaluation
  std::vector<ReplacePoint> curve;
};

/// As JSON whose numbers are read back to the bit. @param reads  of the stage: another one's state is not gone on with
std::string to_text(const ReplaceState&, const StageReads& reads);
struct SavedReplace {
  ReplaceState state;
  StageReads reads;
};
/// @throws UserError
SavedReplace parse_replace_state(const std::string& text);

/// Flat f32 tensors of the trained block, by name.
using NamedTensors = std::vector<std::pair<std::string, TensorView>>;
/// Replaces the file whole: HDF5 with a seal, the text at "/state", each tensor under its name.
void write_replace_state(const std::filesystem::path&, const std::string& text, const NamedTensors&);
/// @throws UserError naming a file that is damaged
std::string read_replace_text(const std::filesystem::path&);
void read_replace_tensors(const std::filesystem::path&, const NamedTensors&);

}  // namespace tessera
