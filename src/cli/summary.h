#pragma once
// What a training tells its reader: the plan at its start, what changed at its end.

#include "cli/plan.h"
#include "cli/workspace.h"

namespace tessera {

void say_plan(Reporter&, const JobInputs&, Model&, const MemoryPlan&, const Datasets&, int64_t steps);

/// What changed: loss and accuracy before and after, and what it cost.
void say_outcome(Reporter&, Model&, const TrainOutcome&, Objective);

/// {"event":"done", ...}, the last line of metrics.jsonl.
Json done_line(const TrainOutcome&, Model&, Objective);

}  // namespace tessera
