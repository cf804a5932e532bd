#pragma once
// What a training left in its run folder or in a checkpoint, for the jobs that work with it.

#include "cli/jobs.h"

namespace tessera {

/// Positions that jobs which read no tokens set the model up for, and the scratch that they assemble and merge in.
constexpr int64_t kExportPositions = 16, kExportScratch = 64 << 20;

/// model_settings of a job that works with what a training left: without an adapter, the model that run.dir holds, else
/// the recipe's; with shared weights, those that run.dir holds. With a checkpoint in run.resume the model as training
/// has it. Every rank looks into its own run.dir. Rank 0 says which.
/// @throws UserError when a training of all weights has begun in run.dir and has not ended,
///   or left them held in another way
Model::Settings trained_model_settings(const JobInputs&, int64_t max_position);

/// @throws UserError when the base model would be exported over a model that run.dir holds, or into a training of all
/// weights that has not ended, or that left them held in another way
void refuse_base_export(const JobInputs&);

/// Loads adapter.load into the model when it is set: where a training starts from.
void start_from_saved_adapter(const JobConfig&, Model&);

/// Loads what a job other than training works with: the checkpoint that run.resume names, or adapter.load, else the
/// adapter that the run's folder holds.
/// @throws UserError when the checkpoint is not of the recipe's model
/// @throws UserError when the recipe has an adapter and neither is there:
///   the base model alone would be measured in its name
void use_trained_weights(const JobInputs&, Model&);

}  // namespace tessera
