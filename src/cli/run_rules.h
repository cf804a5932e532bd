#pragma once
// Which rules a training follows: those that its run began with.

#include <filesystem>

#include "cli/jobs.h"
#include "core/rules.h"

namespace tessera {

/// Of the checkpoint that the run starts from, else of its log's header, on whichever rank or in whichever shared
/// folder it lies, else the newest. The same on every rank.
/// @param start  a checkpoint file, or empty
Rules rules_of_run(const JobInputs&, const std::filesystem::path& start, const std::filesystem::path& run_path);

}  // namespace tessera
