#pragma once
// What a job will write into the run's folder, tried before it begins: a fault that shows early is told early.

#include "cli/jobs.h"

namespace tessera {

/// Looks only; --check does it too. @throws UserError naming everything that stands in the way: a file where a folder
/// belongs or the other way round, a link to nowhere, a folder that cannot be written
void require_free_outputs(const JobInputs&);

}  // namespace tessera
