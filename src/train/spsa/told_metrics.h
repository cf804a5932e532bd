#pragma once
// What the log does not hold: the times of a run that goes on, as its metrics.jsonl tells them, and the evaluations of
// one that kept no figures.json.

#include "steplog/step_log.h"
#include "train/stepper.h"

namespace tessera {

/// What the lines up to a step tell.
struct ToldMetrics {
  CheckpointMeta meta;           // seconds, last loss, evaluations
  int64_t last_step = 0;         // of the training lines
  int64_t last_evaluation = -1;  // step of the last evaluation that has a line
};
ToldMetrics read_told_metrics(const std::filesystem::path& file, int64_t last_step, const Objective&);

/// Lines of rounds from `told` on: those that a process appended and did not live to tell of.
std::vector<Json> untold_rounds(const StepLog&, int64_t told, int64_t bytes_per_probe);

}  // namespace tessera
