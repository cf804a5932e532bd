#pragma once
// --show-batch: what the model is shown and what of it is scored, for people.

#include "cli/jobs.h"

namespace tessera {

/// Prints the first batch of a training, decoded. @return the exit code
int show_batch(const JobInputs&);

}  // namespace tessera
