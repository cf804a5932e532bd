#pragma once
// Rules of a recipe that look at files, and what its keys mean where they are left out or said twice.

#include "cli/job_config.h"

namespace tessera {

/// A training is given train.steps or train.epochs, not both.
void refuse_two_lengths(Recipe&, const TrainConfig&);
/// The job reads data.train.
void require_train_data(Recipe&, const DataConfig&);
/// A path that the job reads: it is there. @param hint  how to mend it where it is not
/// A command in the recipe's head that names what is missing, and so makes it, is repeated.
void check_path(Recipe&, const std::filesystem::path&, const char* section, const char* key,
                const std::string& hint = {});
/// model.path or model.tokenizer: a folder, a file that a model is drawn from, or a name of the hub.
/// @param hint  what else it may be, of one that is not there
void check_model_path(Recipe&, const std::filesystem::path&, const char* key, const std::string& hint);
/// A file that the job reads records or text from, more than once.
void check_data_file(Recipe&, const JobConfig&, const std::filesystem::path&, const char* section, const char* key);

/// What run.resume may name beside auto and never: a checkpoint, which is there.
void check_resume(Recipe&, const JobConfig&);

/// train.steps and train.epochs say the same: what the command line gives takes the place of the recipe's.
void prefer_command_line(const Recipe&, TrainConfig&);

/// A recipe that a run stored stands for that run: its folder is the recipe's.
void stay_in_own_folder(const Recipe&, RunConfig&);

}  // namespace tessera
