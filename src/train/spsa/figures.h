#pragma once
// figures.json: the evaluations of a run whose log does not hold them, and the rows that it has read, as sums and
// counts. metrics.jsonl tells the same to readers, rounded; a run goes on from here.

#include <filesystem>
#include <optional>

#include "core/json.h"
#include "steplog/step_log.h"
#include "train/checkpoint.h"

namespace tessera {

inline constexpr const char* kFiguresFile = "figures.json";  // in the run's folder

/// What the file holds of a run: step, rows_consumed, eval_set, evaluated_at, best_loss, first_eval and last_eval.
Json figures_of(const CheckpointMeta&);
CheckpointMeta meta_of_figures(const Json&);

/// Replaces the run's file.
void keep_figures(const std::filesystem::path& run, const CheckpointMeta&);

/// What was kept, as far as it is of the first `last_step` steps: a log may have lost its end, and a branch leaves its
/// parent before that ended. Nothing when there is no file.
std::optional<CheckpointMeta> read_figures(const std::filesystem::path& run, int64_t last_step);

/// What rounds of a log have read.
struct RoundsRead {
  int64_t rounds = 0, rows = 0;
};
/// Of the rounds from `from` on that the log still holds.
/// @param rows_of_machine  what a machine's votes of a round read
RoundsRead rows_read(const StepLog&, int64_t from, int64_t rows_of_machine);

}  // namespace tessera
