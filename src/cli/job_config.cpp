#include "cli/job_config.h"

#include "cli/jobs.h"
#include "model/model_config.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

std::vector<std::string> job_names() {
  std::vector<std::string> names;
  for (const Job& job : jobs()) names.emplace_back(job.name);
  return names;
}

void check_training(Recipe& recipe, const JobConfig& c) {
  const TrainConfig& t = c.trainer.train;
  if (t.steps && t.epochs)
    recipe.fault("train", "epochs", "train.steps and train.epochs are both given", "give one of them");
  if (!recipe.has("train", "steps") && !recipe.has("train", "epochs"))
    recipe.fault("train", "", "neither train.steps nor train.epochs is given",
                 "give one of them, for example steps = 1000");
  if (c.data.train.empty()) recipe.fault("data", "train", "data.train is not set", "name a .jsonl or text file");
}

void check_adapter(Recipe& recipe, const JobConfig& c) {
  if (c.adapter.targets.empty())
    recipe.fault("adapter", "targets", "adapter.targets names no weights", "write [\"all\"], or leave it out");
  if (c.adapter.method == "none" && !c.adapter.load.empty())
    recipe.fault("adapter", "load", "adapter.load is given, but adapter.method is \"none\"",
                 "set adapter.method and its options to the saved adapter's: its adapter.json names them");
}

void check_generation(Recipe& recipe, const GenerateConfig& g) {
  const std::filesystem::path output = g.output;
  if (output.filename() != output || output.extension() != ".jsonl" || output == "metrics.jsonl")
    recipe.fault(
        "generate", "output", fmt::format("generate.output is \"{}\"", g.output),
        "give a plain file name that ends in .jsonl, and not metrics.jsonl: it is written into the run's folder");
}

void check_files(Recipe& recipe, const JobConfig& c) {
  const auto exists = [&](const std::filesystem::path& path, const char* section, const char* key) {
    if (!path.empty() && !std::filesystem::exists(path))
      recipe.fault(section, key, fmt::format("{}.{} \"{}\" does not exist", section, key, path.string()));
  };
  exists(c.data.train, "data", "train");
  exists(c.data.eval, "data", "eval");
  exists(c.model.path, "model", "path");
  exists(c.model.tokenizer, "model", "tokenizer");
  exists(c.adapter.load, "adapter", "load");
  if (c.run.resume != "auto" && c.run.resume != "never") exists(c.run.resume, "run", "resume");
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
  recipe.read("adapter", c.adapter);
  recipe.read("evaluate", c.trainer.evaluate);
  recipe.read("checkpoint", c.trainer.checkpoint);
  recipe.read("log", c.trainer.log);
  recipe.read("export", c.exports);
  recipe.read("generate", c.generate);
  if (c.model.path.empty()) recipe.fault("model", "path", "model.path is not set", "name a Hugging Face folder");
  if (c.job == "train") check_training(recipe, c);
  check_adapter(recipe, c);
  check_generation(recipe, c.generate);
  check_files(recipe, c);
  recipe.finish();
}

std::string list_kind(const std::string& kind) {
  std::string text;
  const auto add = [&](std::string_view name, std::string_view help) {
    text += fmt::format("{:<12} {}\n", name, help);
  };
  if (kind == "jobs")
    for (const Job& job : jobs()) add(job.name, job.help);
  else if (kind == "adapters")
    for (const AdapterMethod& method : adapter_methods()) add(method.name, method.help);
  else if (kind == "optimizers")
    for (const OptimizerKind& optimizer : optimizer_kinds()) add(optimizer.name, optimizer.help);
  else if (kind == "models")
    for (const ModelFamily& family : model_families()) add(family.name, family.help);
  else
    throw UserError("command line", fmt::format("--list \"{}\" is not known", kind),
                    "kinds: jobs, adapters, optimizers, models");
  return text;
}

}  // namespace tessera
