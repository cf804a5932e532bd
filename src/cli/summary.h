#pragma once
// What a training tells its reader: the plan at its start, what changed at its end.

#include "cli/datasets.h"
#include "cli/plan.h"
#include "cli/written.h"

namespace tessera {

void say_plan(Reporter&, const JobInputs&, Model&, const MemoryPlan&, const Datasets&, int64_t steps);

/// What changed: loss and accuracy before and after, those of each folder that was written, and what it cost.
void say_outcome(Reporter&, const JobInputs&, Model&, const TrainOutcome&, const std::vector<Written>&);

/// {"event":"done", ...}, the last line of metrics.jsonl.
Json done_line(const JobInputs&, const TrainOutcome&, Model&, const std::vector<Written>&);

}  // namespace tessera
