#pragma once
// What a training leaves in its run folder, and the jobs that work with it: adapter/, sharing/, model/, peft/.

#include "cli/written.h"

namespace tessera {

/// Positions that jobs which read no tokens set the model up for, and the scratch that they assemble and merge in.
constexpr int64_t kExportPositions = 16, kExportScratch = 64 << 20;

/// model_settings of a job that works with what a training left: without an adapter, the model that run.dir holds, else
/// the recipe's; with shared weights, those that run.dir holds. With a checkpoint in run.resume the model as training has it. Every rank looks into its own run.dir. Rank 0 says which.
/// @throws UserError when a training of all weights has begun in run.dir and has not ended, or left them held in another way
Model::Settings trained_model_settings(const JobInputs&, int64_t max_position);

/// @throws UserError when the base model would be exported over a model that run.dir holds, or into a training of all
/// weights that has not ended, or that left them held in another way
void refuse_base_export(const JobInputs&);

/// Loads adapter.load into the model when it is set: where a training starts from.
void start_from_saved_adapter(const JobConfig&, Model&);

/// Loads what a job other than training works with: the checkpoint that run.resume names, or adapter.load, else the adapter that the
/// run's folder holds. @throws UserError when the checkpoint is not of the recipe's model
/// @throws UserError when the recipe has an adapter and neither is there: the base model alone would be measured in its name
void use_trained_weights(const JobInputs&, Model&);

/// Runs `work`; where it fails, the hint goes on with what is kept nevertheless.
void naming_what_is_kept(const std::string& kept, const std::function<void()>& work);

/// Writes what [export] asks for into a run's folder; full training always exports the model. What was trained comes first, as it
/// is: an adapter or shared weights; what is made of it and may fail (merging, another dtype, another format) comes behind.
/// @param say  told each folder that was written; may be empty
/// @throws UserError whose hint ends with what is kept, and how the rest is written once the fault is mended
/// @return the folders, without figures
std::vector<Written> export_results(const JobInputs&, const Context&, Model&, const std::filesystem::path& folder,
                                    const std::function<void(const std::string&)>& say);

/// Writes the dense model into a run's folder. @return the folder, and whether its numbers were rounded
Written write_model(const JobInputs&, const Context&, Model&, const std::filesystem::path& run);

/// That a folder holds rounded weights, and how they come out as they are; empty where none was rounded.
/// @param meaning  what follows from it, behind a comma; may be empty
std::string rounded_notice(const Written&, const std::string& meaning = {});

/// Whether a training ends with a dense model: full training always, unless its weights are shared and can be loaded as such.
bool writes_model(const JobInputs&, Model&);
/// What a dense export is called where it is told: of a shared model with how much larger it is.
std::string dense_notice(Model&);

}  // namespace tessera
