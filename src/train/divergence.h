#pragma once
// What to do about a run whose numbers have left the finite ones: in words that can be followed as they stand.

#include <string>

#include "train/trainer.h"

namespace tessera {

/// The overrides that train on with a lower rate: from the newest checkpoint that is no worse than the run's beginning, in a new
/// folder, or from the start when there is none. A checkpoint may hold finite numbers and have diverged all the same: the loss of
/// the step after it says so.
std::string way_out_of_divergence(const TrainerInputs&);

/// An argument as a shell takes it: quoted where it must be.
std::string shell_word(const std::string& text);

}  // namespace tessera
