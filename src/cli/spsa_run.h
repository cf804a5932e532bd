#pragma once
// The run folder of a training by one-byte SPSA: run.json beside the log, and the header that all machines share.

#include "cli/estimator_run.h"
#include "train/checkpoint.h"
#include "train/spsa/rounds.h"

namespace tessera {

const EstimatorRun& spsa_run();

/// What run.json says of the run whose log is in the folder; nothing without a log.
std::optional<CheckpointMeta> meta_of_log(const std::filesystem::path& run_path);

}  // namespace tessera
