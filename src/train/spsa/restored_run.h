#pragma once
// The figures of a run that goes on: from its log, and from what stands beside it.

#include "train/spsa/replica.h"
#include "train/stepper.h"
#include "train/trainer_inputs.h"

namespace tessera {

class StepLog;

/// Rows of a round: what one machine takes, and how many machines there are now.
struct RowsOfRound {
  int64_t of_machine, machines;
  int64_t all() const { return of_machine * machines; }
};

/// Of the run that the replica has caught up with. Every rank calls it; the figures are those of the first.
/// @param log       of a rank that has the run's folder; may be null for others
Restored restored_run(const TrainerInputs&, const Replica&, const StepLog* log, const RowsOfRound&);

}  // namespace tessera
