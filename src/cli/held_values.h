#pragma once
#include "cli/job_config.h"

namespace tessera {

/// Faults of values that are in their keys' ranges and that arithmetic in f32 turns into 0 or infinity.
void check_held_values(Recipe&, JobConfig&);

}  // namespace tessera
