#pragma once
// Checkpoints: one sealed HDF5 file a step, written whole or not at all. Layout: docs/checkpoint.md.

#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "core/rules.h"
#include "io/hdf5_file.h"
#include "model/parameter_pool.h"
#include "score/loss_sums.h"
#include "train/optimizers/optimizer.h"

namespace tessera {

/// Everything of a run that is not a tensor. The data state is one integer: rows consumed.
struct CheckpointMeta {
  Rules rules = kNewestRules;
  int64_t step = 0, rows_consumed = 0;
  int64_t ranks = 1;
  double seconds = 0;                                           // of training so far
  int64_t tokens = 0;                                           // trained on so far
  double last_loss = std::numeric_limits<double>::quiet_NaN();  // of the last step
  LossSums first_eval, last_eval;                               // before step 1, and the latest
  double best_loss = std::numeric_limits<double>::infinity();   // of all evaluations
  int64_t owes_evaluation = 0;                                  // 1: a stop left that of this step
  std::string eval_set;                                         // evaluation_set of these; empty: not known
  int64_t evaluated_at = -1;                                    // step of last_eval; checkpoints do not keep it
  std::vector<std::pair<std::string, std::string>> recipe;      // key -> value, what resume compares
  std::string data_hash, base_fingerprint;
  // Files of earlier versions have none of these.
  std::string config_fingerprint;  // of the model's config.json
  std::string start_values;        // values_hash before step 1: of what model.path, *.load and seeds led to
};

/// checkpoints/step-00001000.h5
std::filesystem::path checkpoint_file(const std::filesystem::path& folder, int64_t step);

/// Which checkpoints of a folder stay.
struct Retention {
  int64_t keep = 2;           // the newest readable ones, the one just written among them
  int64_t gone_on_from = 0;   // the step that this process began with: its file stays until a second one is written
  std::set<int64_t> whole{};  // steps whose files are known to be readable: written by this process, or looked at
};

/// A state that is not finite leads nowhere: the checkpoint before it stays the newest.
/// @throws UserError naming the first trained number, or number of the optimizer's state, that is not finite
void require_finite_state(int64_t step, const FlatParams&, Optimizer&);

/// Writes the file atomically, points `latest` at it, and removes older ones that Retention does not keep. Files of
/// later steps stay: those that a run went back behind are damaged, and do not count.
void save_checkpoint(const std::filesystem::path& folder, const CheckpointMeta&, const FlatParams&, Optimizer&,
                     Retention&, bool is_best);

/// A checkpoint that is opened once: all that is read of it is of one file, also where a run that goes on removes it or
/// writes another one of its name meanwhile. The seal was checked when it was opened.
class OpenedCheckpoint {
 public:
  /// @throws UserError as read_checkpoint_meta
  explicit OpenedCheckpoint(const std::filesystem::path& file);
  /// The same for a file that the user has named, or that a job has chosen:
  /// the error names an earlier checkpoint of its folder, if one is whole.
  static OpenedCheckpoint chosen(const std::filesystem::path& file);

  const CheckpointMeta& meta() const { return meta_; }
  /// Fills the values alone: for jobs that do not train on. @throws UserError as load_checkpoint
  void load_values(FlatParams&) const;

 private:
  std::filesystem::path path_;
  Hdf5File file_;
  CheckpointMeta meta_;
};

/// Reads the meta of a file. @throws UserError naming a file that is truncated, altered or of another format
CheckpointMeta read_checkpoint_meta(const std::filesystem::path& file);

/// That of a chosen file.
CheckpointMeta read_chosen_checkpoint(const std::filesystem::path& file);

/// Fills values and optimizer state. @throws UserError naming the slot that is missing or has another shape;
/// nothing is changed then
void load_checkpoint(const std::filesystem::path& file, FlatParams&, Optimizer&);

/// read_checkpoint_meta and load_checkpoint on rank 0, which is the only one that needs to see the file;
/// sent to the others.
CheckpointMeta receive_checkpoint(const std::filesystem::path& file, Communicator&, FlatParams&, Optimizer&);

/// SHA-256 of all trained numbers.
std::string values_hash(const FlatParams&);

/// Where the checkpoints of a run are: in its folder's "checkpoints", or in the folder itself; nothing when neither
/// holds any.
std::optional<std::filesystem::path> checkpoints_in(const std::filesystem::path& folder);

/// Steps of the checkpoints in a folder, newest first, whole or not.
std::vector<int64_t> checkpoint_steps(const std::filesystem::path& folder);

/// The newest checkpoint in the folder that is whole, or nothing when there is none. Damaged ones are described in
/// `notices` and skipped. A checkpoint is what checkpoint_file names: copies under other names are the user's.
/// @throws UserError when there are checkpoints and all are damaged, or `latest` names one and all are gone: to start
/// anew is for the user to decide
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder,
                                                       std::vector<std::string>& notices);

}  // namespace tessera
