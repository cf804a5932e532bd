#pragma once
// Event files for TensorBoard: the numbers of metrics.jsonl as scalars, "train/loss", "eval/exact_match", ... Page:
// docs/metrics.md.

#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"

namespace tessera {

/// The event file of a run, `events.out.tfevents.<seconds>.<host>.<pid>`. A scalar's name is the line's "split", "/"
/// and the member's key; every number but "step" is one. Lines without a split (events) are not shown. Values are f32,
/// as TensorBoard keeps scalars.
class EventFile {
 public:
  /// Writes a new file that holds `kept`, in order, and removes the folder's older event files: a resumed run shows
  /// each step once. Their times are set back from now by the steps' "step_seconds", so that the time axis shows
  /// training time.
  /// @throws UserError when it cannot be written
  EventFile(const std::filesystem::path& folder, const std::vector<Json>& kept);

  /// Adds a line's scalars at the present time and flushes. A kill can tear the last record, which readers skip.
  /// @throws UserError when it cannot be written
  void append(const Json& line);

  const std::filesystem::path& path() const { return file_; }

 private:
  std::filesystem::path file_;
};

}  // namespace tessera
