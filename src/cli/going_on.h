#pragma once
// Going on with a run: which checkpoint, and whether recipe, data and base model are still those of the run.

#include "cli/jobs.h"
#include "train/checkpoint.h"

namespace tessera {

/// Whether run.resume names a file: a checkpoint to start a new folder from, or for other jobs to work with.
bool names_checkpoint(const RunConfig&);

/// Rank 0's choice of where to start, told to all: a checkpoint file or nothing.
std::filesystem::path choose_start(const JobInputs&, const RunFolder*, std::vector<std::string>& notices);

/// Whether the folder's run is finished and the recipe asks for no more steps: rank 0's word.
/// It prints the last line again.
bool already_done(const JobInputs&, const RunFolder*, const std::filesystem::path& start, int64_t steps);

/// What is to be told when a finished run's figures are printed again and the recipe's held-out rows are others by now;
/// mostly empty.
std::string other_figures_notice(const JobInputs&, const RunFolder*, const std::filesystem::path& start,
                                 const PackedDataset& eval);

/// What a run goes on from, and may change on the way.
struct GoingOn {
  CheckpointMeta saved;
  std::filesystem::path file;  // a checkpoint, or run.json
  int64_t steps = 0;           // that this recipe asks for
  bool is_new_folder = false;  // from a checkpoint's path: the rate and how long to train may be others
  bool is_finished = false;    // all steps that were asked for are done: more of them may be asked for
};

/// The checkpoint `start` of rank 0's run folder; nothing on other ranks, and for a run that starts.
std::optional<GoingOn> going_on(const JobInputs&, const RunFolder*, const std::filesystem::path& start, int64_t steps);

/// What --check sees of all this: the recipe against the run that it would go on with, before data is read.
/// Nothing is written.
/// @param run  the run's folder, which need not exist
void look_at_run(const JobInputs&, const std::filesystem::path& run);

/// Keys that name files are not compared here: what they hold is (require_same_content); nor are keys that nobody
/// reads. A key that the run's version of the program did not have stood at its default.
/// @throws UserError listing every key whose value is not the run's, or telling that the training data changed
void require_same_run(const JobInputs&, const PackedDataset&, const GoingOn&);

/// The model that the run began with, whatever its path is now.
/// @param base  Model::start_fingerprint
void require_same_content(const JobInputs&, Model&, const std::string& base, const GoingOn&);

/// For hints: the overrides that begin another run beside this one.
std::string start_anew(const JobInputs&);
/// "KEY was BEFORE, now NOW", with "not set" for what is empty.
std::string change_in_words(const std::string& key, const std::string& before, const std::string& now);

/// For jobs that take weights from a checkpoint: its model, sharing and adapter are the recipe's.
/// @throws UserError otherwise
void require_same_model(const JobInputs&, Model&, const CheckpointMeta& saved, const std::filesystem::path& file);

/// What deserves a word: the learning rate before and after, when a key that decides it has changed; empty otherwise.
std::string rate_notice(const JobInputs&, const PackedDataset&, const GoingOn&);

}  // namespace tessera
