#pragma once
// The training loop: steps by the recipe's estimator, and what lies between them: metrics, evaluations, checkpoints,
// stops.

#include "train/checkpoint.h"
#include "train/trainer_inputs.h"

namespace tessera {

struct TrainOutcome {
  CheckpointMeta meta;   // as of the last step done
  bool stopped = false;  // by a signal, before the last step
};

/// Trains to the last step, or until a stop is asked for: a step is finished, an evaluation is left between two batches
/// and made when the run goes on; a checkpoint of the last step that was done is left.
/// The loss of a step is the summed loss over the scored tokens of the global batch divided by their global count.
/// @throws UserError when a loss or gradient is not finite: the step is not taken, the message names what broke
TrainOutcome run_training(const TrainerInputs&);

}  // namespace tessera
