#pragma once
// Going on with a run: which checkpoint, and whether recipe, data and base model are still those of the run.

#include "cli/workspace.h"
#include "train/checkpoint.h"

namespace tessera {

/// @throws UserError listing every key whose value is not the checkpoint's, or telling that the training data changed
void require_same_run(const Recipe&, const PackedDataset&, const CheckpointMeta& saved,
                      const std::filesystem::path& file);
/// @param base  Model::start_fingerprint
void require_same_base(const std::string& base, const CheckpointMeta& saved, const std::filesystem::path& file);

/// Rank 0's choice of where to start, told to all: a checkpoint file or nothing.
std::filesystem::path choose_start(const JobInputs&, const RunFolder*, std::vector<std::string>& notices);

/// Whether the folder's run is finished: rank 0's word. It prints the last line again.
bool already_done(const JobInputs&, const RunFolder*);

}  // namespace tessera
