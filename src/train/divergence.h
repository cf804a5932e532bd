#pragma once
// What to do about a run whose numbers have left the finite ones: in words that can be followed as they stand.

#include <string>

#include "core/shell_word.h"
#include "train/trainer_inputs.h"

namespace tessera {

/// The first number of the pool, else of its gradients, that is not finite, as text.
std::string name_broken(Model&);
/// @throws UserError when the base model's files hold a number that is not finite
void refuse_broken_base(Model&, int64_t step);

/// The overrides that train on with a lower rate: from the newest checkpoint that is no worse than the run's beginning,
/// in a new folder, or from the start when there is none. A checkpoint may hold finite numbers and have diverged all
/// the same: the loss of the step after it says so.
/// @param more  overrides beside the rate, as they are typed
std::string lower_rate_from_checkpoint(const TrainerInputs&, const std::string& more);
/// The same from the start: where a run has no checkpoint.
std::string lower_rate_from_start(const TrainerInputs&, const std::string& more = {});

}  // namespace tessera
