#pragma once
// The run folder of a training by one-byte SPSA: run.json beside the log, and the header that all machines share.

#include "cli/jobs.h"
#include "train/checkpoint.h"
#include "train/spsa/rounds.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {

/// A process beside others of one run keeps its things in a folder of its own. own_run_folder makes the folder around it.
std::filesystem::path own_run_path(const JobInputs&);
std::filesystem::path own_run_folder(const JobInputs&);

/// transport = "file": the folder of the shared log.
std::filesystem::path shared_folder(const JobInputs&);

/// What run.json says of the run whose log is in the folder; nothing without a log.
std::optional<CheckpointMeta> meta_of_log(const std::filesystem::path& run_path);

/// The run's header, the same on every rank, and what probes with.
std::unique_ptr<SpsaInputs> spsa_inputs(const JobInputs&, Model&, const PackedDataset&, const std::string& base, Rules,
                                        const std::filesystem::path& run_path, const Context&);

}  // namespace tessera
