#pragma once
// A training that was asked to stop: what it says, so that following it goes on.

#include <filesystem>
#include <string>

#include "cli/jobs.h"

namespace tessera {

/// How the run in this folder goes on, as the end of a sentence: "the same command goes on", or what must be added to
/// it where run.resume is not "auto" and the command would begin another run.
std::string how_it_goes_on(const JobInputs&, const std::filesystem::path& run);

}  // namespace tessera
