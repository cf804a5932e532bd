#pragma once
// What a job reads is never written by it: not through another spelling, not through a link.

#include <filesystem>

#include "cli/jobs.h"

namespace tessera {

/// @throws UserError naming the input that a file or a folder of this job's run folder is, or holds
void refuse_overwritten_inputs(const JobInputs&, const std::filesystem::path& run);

/// Writes the resolved recipe, unless the file is the recipe that was given and says the same already:
/// then it stays as it is.
void keep_recipe(const JobInputs&, const std::filesystem::path& file);

}  // namespace tessera
