#pragma once
// The figures of a run that goes on: from its log, and from what stands beside it.

#include "train/spsa/replica.h"
#include "train/stepper.h"

namespace tessera {

class StepLog;

/// Of the run that the replica has caught up with. Every rank calls it; the figures are those of the first.
/// @param log       of a rank that has the run's folder; may be null for others
/// @param machines  how many take part now
Restored restored_run(const TrainerInputs&, const Replica&, const StepLog* log, uint32_t machines);

}  // namespace tessera
