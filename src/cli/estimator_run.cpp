#include "cli/estimator_run.h"

#include "cli/run_path.h"
#include "core/error.h"
#include "io/files.h"
#include "train/checkpoint.h"
#include "train/divergence.h"

namespace tessera {
namespace fs = std::filesystem;

fs::path EstimatorRun::own_path(const JobInputs& in) const { return run_folder_path(in); }

std::optional<Rules> EstimatorRun::known_rules(const JobInputs& in, const fs::path& start, const fs::path&) const {
  if (start.empty() || in.world.rank() != 0) return std::nullopt;
  return read_chosen_checkpoint(start).rules;
}

void EstimatorRun::look(const JobInputs&, const fs::path&) const {}

std::string EstimatorRun::how_to_write_f32(const fs::path& run, int64_t step) const {
  const fs::path file = checkpoint_file(run / "checkpoints", step);
  return fmt::format("job=export model.dtype=f32 {} run.dir=FOLDER writes them in f32",
                     shell_word("run.resume=" + file.string()));
}

const EstimatorRun& estimator_run(const JobConfig& config) {
  static const EstimatorRun plain;
  for (const ListedRun& listed : estimator_runs())
    if (listed.estimator == config.trainer.train.estimator) return listed.run;
  return plain;
}

fs::path own_run_path(const JobInputs& in) { return estimator_run(in.config).own_path(in); }

fs::path own_run_folder(const JobInputs& in) {
  fs::path own = own_run_path(in);
  if (own != run_folder_path(in)) create_folder(run_folder_path(in));
  return own;
}

void refuse_other_estimators_run(const JobInputs& in, const std::filesystem::path& run) {
  for (const ListedRun& listed : estimator_runs()) {
    if (listed.estimator == in.config.trainer.train.estimator) continue;
    for (const std::string& left : listed.run.leaves().folders)
      if (std::filesystem::exists(run / left))
        throw UserError((run / left).string(),
                        fmt::format("belongs to a run with train.estimator = \"{}\"", listed.estimator),
                        fmt::format("set train.estimator = \"{}\" to go on with it, or run.dir to another folder",
                                    listed.estimator));
  }
}

}  // namespace tessera
