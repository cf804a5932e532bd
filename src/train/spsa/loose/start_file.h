#pragma once
// What a run begins with, kept beside the snapshots: a machine whose weights are wrong, and that has no snapshot, makes
// them anew from here and its log.

#include <filesystem>

#include "train/spsa/replica.h"

namespace tessera {

/// checkpoints/start.safetensors, in the form of a snapshot of round 0.
std::filesystem::path start_file(const std::filesystem::path& checkpoints);

/// @param replica  before the first round. @throws UserError when the file cannot be written
void keep_start(Replica& replica, const std::filesystem::path& checkpoints);

/// The replica is as it was before the first round.
/// @param params  the replica's
/// @throws UserError when the file is missing, damaged, or not what the run's header says that it begins with; the
///   replica's state is worth nothing then
void load_start(const Context&, Replica& replica, const FlatParams& params, const std::filesystem::path& checkpoints);

}  // namespace tessera
