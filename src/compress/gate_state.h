#pragma once
// What gate training goes on from: compress/gates-state.json, replaced whole every checkpoint.every steps. Numbers that
// the next step depends on stand there as the hexadecimal digits of their 64 bits, so that a run that was killed ends
// with the same bits as one that was not.

#include <filesystem>
#include <vector>

#include "compress/journal.h"

namespace tessera {

struct GateState {
  int64_t step = 0;                          // done
  std::vector<double> theta, first, second;  // parameters and Adam's moments, one a gate
  double mu = 0;                             // of the constraint
  struct Fall {
    int64_t step, gate;
  };
  std::vector<Fall> fallen;                // gates that are below 0.5, in the order in which they fell
  std::vector<std::vector<double>> curve;  // theta before step 1 and after every tenth

  /// All gates at 1.
  static GateState open(size_t gates);
};

/// The file's text. @param reads  of the stage: another one's state is not gone on with
std::string to_text(const GateState&, const StageReads& reads);
struct SavedGates {
  GateState state;
  StageReads reads;
};
/// @throws UserError naming the file
SavedGates parse_gates(const std::string& text, const std::string& where);

}  // namespace tessera
