#include "cli/job_config.h"

#include "cli/folded_run.h"
#include "cli/jobs.h"
#include "cli/recipe_rules.h"
#include "cli/unread_keys.h"
#include "core/error.h"
#include "data/tokenizer/unicode.h"
#include "kernels/compute.h"
#include "kernels/cpu_target.h"
#include "train/estimator.h"

namespace tessera {
namespace {

std::vector<std::string> job_names() {
  std::vector<std::string> names;
  for (const Job& job : jobs()) names.emplace_back(job.name);
  return names;
}

void check_objective(Recipe& recipe, const JobConfig& c) {
  const Objective& objective = objective_of(c.trainer.train.objective);
  if (objective.rows == ExampleRows::choices && c.data.label_words.empty())
    recipe.fault("train", "objective",
                 fmt::format("train.objective is \"{}\", but data.label_words is not set", objective.name),
                 "give the words to choose from, for example label_words = [\" terrible\", \" great\"]");
  if (objective.gradient == HiddenGradient::none && estimator_of(c.trainer).has_gradients())
    recipe.fault("train", "objective",
                 fmt::format("train.objective = \"{}\" takes forward passes only, and train.estimator is \"{}\"",
                             objective.name, c.trainer.train.estimator),
                 "set train.estimator = \"spsa\", or train.objective = \"tokens\", which trains on the right words");
}

void check_adapter(Recipe& recipe, const JobConfig& c) {
  if (c.adapter.method != "none" && !c.trainer.train.freeze.empty())
    recipe.fault("train", "freeze", "train.freeze is given, and an adapter leaves all weights as they are",
                 "adapter.targets names what is adapted");
}

void check_exports(Recipe& recipe, const JobConfig& c) {
  if (job_of(c).results == JobResults::none) return;  // nothing is written
  if (c.exports.peft && c.sharing.method != "none")
    recipe.fault(
        "export", "peft", "export.peft is set, and there is no dense base that PEFT could put the adapter on",
        c.exports.merged
            ? "set export.peft = false: the dense model with the adapter in it is written all the same"
            : "set export.peft = false; export.merged = true then writes the dense model with the adapter in it");
}

/// What a run writes about itself is UTF-8 text: its recipe, checkpoints, reports.
void check_utf8(Recipe& recipe, const JobConfig& c) {
  const auto fault = [&](const std::string& section, const std::string& key, const std::string& what) {
    recipe.fault(section, key, what + " holds bytes that are not UTF-8",
                 "rename the file or folder, or reach it through a link with another name");
  };
  for (const auto& [name, value] : recipe.flat()) {
    if (tokenizer::is_valid_utf8(value)) continue;
    const size_t dot = name.rfind('.');
    fault(dot == std::string::npos ? "" : name.substr(0, dot), name.substr(dot + 1), name);
  }
  const std::filesystem::path folder = c.run.dir.empty() ? std::filesystem::path("runs") / recipe.name() : c.run.dir;
  if (!tokenizer::is_valid_utf8(std::filesystem::absolute(folder).string()) &&
      tokenizer::is_valid_utf8(c.run.dir.string()))
    fault("run", "dir", "the path of the run's folder");
}

/// Not every device has every table of kernels, nor every machine all instructions. From here on the cpu kernels use
/// the recipe's.
void check_backend(Recipe& recipe, const RunConfig& run) {
  try {
    kernels_for(device_of(run.device), run.backend);
  } catch (const UserError& error) {
    recipe.fault("run", "backend", error.message(), error.hint());
  }
  try {
    use_cpu_target(run.target);
  } catch (const UserError& error) {
    recipe.fault("run", "target", error.message(), error.hint());
  }
}

void check_files(Recipe& recipe, const JobConfig& c) {
  if (job_of(c).reads_data) {
    check_data_file(recipe, c, c.data.train, "data", "train");
    check_data_file(recipe, c, c.data.eval, "data", "eval");
  }
  check_model_path(recipe, c.model.path, "path",
                   "name a Hugging Face folder, the folder that scripts/import_gguf makes of a GGUF file");
  check_model_path(recipe, c.model.tokenizer, "tokenizer", "name the folder of tokenizer.json");
  check_path(recipe, c.sharing.load, "sharing", "load");
  check_path(recipe, c.adapter.load, "adapter", "load");
  check_resume(recipe, c);
}

/// Rules of a job are asked once it is known which one: of a job that was refused already, one fault is told.
bool knows_job(const Recipe& recipe, const JobConfig& c) {
  return !recipe.has("", "job") || recipe.given_text("", "job") == c.job;
}

}  // namespace

void JobConfig::visit(Fields& v) { v("job", job, one_of(job_names()), "what to do"); }

void read_job(Recipe& recipe, JobConfig& c) {
  recipe.read("", c);
  recipe.read("run", c.run);
  recipe.read("model", c.model);
  recipe.read("data", c.data);
  recipe.read("train", c.trainer.train);
  recipe.read("optimizer", c.trainer.optimizer);
  for (const auto& estimator : c.trainer.estimators.all()) {
    if (!estimator->section().empty()) recipe.read(estimator->section(), *estimator);
    for (Estimator::MoreKeys& more : estimator->more_sections()) recipe.read(more.section, more);
  }
  recipe.read("sharing", c.sharing);
  recipe.read("adapter", c.adapter);
  recipe.read("evaluate", c.trainer.evaluate);
  recipe.read("checkpoint", c.trainer.checkpoint);
  recipe.read("log", c.trainer.log);
  recipe.read("export", c.exports);
  for (const Job& job : jobs())
    if (job.read) job.read(recipe, c);
  estimator_of(c.trainer).set_defaults(recipe, c.trainer);
  prefer_command_line(recipe, c.trainer.train);
  const Job& asked = job_of(c);
  const bool is_known = knows_job(recipe, c);
  if (is_known && asked.check) asked.check(recipe, c);
  if (is_known && asked.trains) estimator_of(c.trainer).check(recipe, {c.trainer, c.run, c.adapter, c.sharing});
  check_objective(recipe, c);
  if (asked.trains) check_adapter(recipe, c);
  check_exports(recipe, c);
  check_backend(recipe, c.run);
  check_files(recipe, c);
  check_utf8(recipe, c);
  recipe.finish();
  stay_in_own_folder(recipe, c.run);
  UnreadKeys unread = unread_keys(c);
  c.notes.insert(c.notes.end(), unread.notes.begin(), unread.notes.end());
  c.unread = std::move(unread.names);
  if (std::string line = take_folded_model(recipe, c); !line.empty()) c.notes.push_back(std::move(line));
}

}  // namespace tessera
