#pragma once
// Rounds of one-byte SPSA as steps of the training loop.

#include "train/spsa/spsa_config.h"
#include "train/stepper.h"
#include "train/trainer_inputs.h"

namespace tessera {

/// @param in  with SpsaInputs prepared; both outlive the stepper
std::unique_ptr<Stepper> make_spsa_stepper(const TrainerInputs& in, const SpsaConfig&);

}  // namespace tessera
