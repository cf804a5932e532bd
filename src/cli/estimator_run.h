#pragma once
// What the command line does for the run of an estimator: where the run lies, what it goes on from, what it is prepared
// with. Most leave checkpoints and need nothing of their own; estimator_runs.cpp lists the others.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/jobs.h"
#include "core/rules.h"

namespace tessera {

/// A training that is about to begin.
struct StartingRun {
  const JobInputs& in;
  Model& model;
  const PackedDataset& data;
  const std::string& base;  // Model::start_fingerprint; on rank 0
  Rules rules;
  const std::filesystem::path& path;  // the run's folder
  const Context& ctx;
};

class EstimatorRun {
 public:
  virtual ~EstimatorRun() = default;
  /// The folder of this process's run: run.dir, or one in it.
  virtual std::filesystem::path own_path(const JobInputs&) const;
  /// Files and folders that it leaves in the run's folder beside those of every training.
  struct Leaves {
    std::vector<std::string> files, folders;
  };
  virtual Leaves leaves() const { return {}; }
  /// The rules of the run that it goes on with, as far as this rank knows. @param start  a checkpoint file, or empty
  virtual std::optional<Rules> known_rules(const JobInputs&, const std::filesystem::path& start,
                                           const std::filesystem::path& run) const;
  /// What --check looks at in the folder of a run that has not ended, beside its checkpoints; nothing is written.
  /// @throws UserError that going on would end with
  virtual void look(const JobInputs&, const std::filesystem::path& run) const;
  /// Whether a run that has ended takes more steps when they are asked for.
  virtual bool can_be_lengthened() const { return true; }
  /// Every rank calls it. @return null: the trainer's own inputs will do.
  /// @throws UserError when the run in the folder is another
  virtual std::unique_ptr<Preparation> prepare(const StartingRun&) const { return nullptr; }
  /// The overrides of a job that writes all trained weights in f32, and what it does, as the end of a sentence.
  virtual std::string how_to_write_f32(const std::filesystem::path& run, int64_t step) const;
};

/// Of the recipe's estimator.
const EstimatorRun& estimator_run(const JobConfig&);

/// Those of estimators that need one.
struct ListedRun {
  std::string_view estimator;
  const EstimatorRun& run;
};
const std::vector<ListedRun>& estimator_runs();
/// @throws UserError when the folder holds what another estimator's run goes on from
void refuse_other_estimators_run(const JobInputs&, const std::filesystem::path& run);

/// A process beside others of one run keeps its things in a folder of its own.
/// own_run_folder makes the folder around it.
std::filesystem::path own_run_path(const JobInputs&);
std::filesystem::path own_run_folder(const JobInputs&);

}  // namespace tessera
