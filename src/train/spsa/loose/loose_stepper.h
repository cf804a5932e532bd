#pragma once
// The training loop's step where machines come and go: rounds of one-byte SPSA over a log engine that is all that they
// have in common.

#include <memory>

#include "train/spsa/spsa_config.h"
#include "train/stepper.h"
#include "train/trainer_inputs.h"

namespace tessera {

std::unique_ptr<Stepper> make_loose_stepper(const TrainerInputs&, const SpsaConfig&);

}  // namespace tessera
