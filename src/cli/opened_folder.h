#pragma once
// The folder of a run, opened by the one rank that writes it.

#include <memory>

#include "cli/jobs.h"
#include "train/run_folder.h"

namespace tessera {

/// The run's folder, on rank 0; null on the others.
/// @throws Stopped on every rank when rank 0 was asked to stop while it waited for the folder
std::unique_ptr<RunFolder> open_run_folder(const JobInputs&);

}  // namespace tessera
