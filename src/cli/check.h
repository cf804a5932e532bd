#pragma once
// --check: what a run would do, before it does it.

#include "cli/jobs.h"

namespace tessera {

/// Prints the plan as text, or as one JSON object. @throws UserError as the job would
/// @return the exit code
int check_job(const JobInputs&, bool as_json);

}  // namespace tessera
