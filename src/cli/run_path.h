#pragma once
// Where a recipe's run lies.

#include <filesystem>

#include "cli/jobs.h"

namespace tessera {

/// run.dir, else runs/<recipe name> in the working directory. It need not exist.
std::filesystem::path run_folder_path(const JobInputs&);

/// Whether a run of any job that keeps records lies in the folder.
bool holds_run(const std::filesystem::path& folder);

}  // namespace tessera
