#include "cli/job_config.h"

#include <cmath>
#include <limits>

#include "cli/jobs.h"
#include "cli/recipe_rules.h"
#include "cli/unread_keys.h"
#include "data/tokenizer/unicode.h"
#include "model/model_config.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

std::vector<std::string> job_names() {
  std::vector<std::string> names;
  for (const Job& job : jobs()) names.emplace_back(job.name);
  return names;
}

void check_objective(Recipe& recipe, const JobConfig& c) {
  if (c.trainer.train.objective != "choices") return;
  if (c.data.label_words.empty())
    recipe.fault("train", "objective", "train.objective is \"choices\", but data.label_words is not set",
                 "give the words to choose from, for example label_words = [\" terrible\", \" great\"]");
  if (c.trainer.train.estimator != "spsa")
    recipe.fault("train", "objective",
                 fmt::format("train.objective = \"choices\" takes forward passes only, and train.estimator is \"{}\"",
                             c.trainer.train.estimator),
                 "set train.estimator = \"spsa\", or train.objective = \"tokens\", which trains on the right words");
}

void check_spsa(Recipe& recipe, const JobConfig& c) {
  if (c.trainer.train.estimator != "spsa") return;
  const SpsaConfig& s = c.trainer.spsa;
  const OptimizerConfig& o = c.trainer.optimizer;
  if (c.trainer.train.clip != TrainConfig{}.clip && c.trainer.train.clip != 0)
    recipe.fault("train", "clip", "train.clip bounds gradients, and SPSA has none", "spsa.clip bounds votes");
  if (c.trainer.train.checkpoint_activations)
    recipe.fault("train", "checkpoint_activations", "SPSA keeps no activations", "leave it out");
  if (c.adapter.dropout > 0)
    recipe.fault("adapter", "dropout", "adapter.dropout is set, and SPSA compares losses of the same rows",
                 "leave it out");
  if (s.perturb == "layers" && (c.adapter.method != "none" || c.sharing.method != "none"))
    recipe.fault("spsa", "perturb", "spsa.perturb = \"layers\" is for weights that are each trained for themselves",
                 "leave it out");
  if (s.normalise && s.sides != "one")
    recipe.fault("spsa", "normalise", "normalised votes compare the losses of one set of rows",
                 "set spsa.sides = \"one\"");
  if (s.normalise && s.probes < 2)
    recipe.fault("spsa", "probes", "the deviation of one loss is not known", "set spsa.probes to at least 2");
  if (s.votes == "float32" && s.probes > 63)
    recipe.fault("spsa", "probes", "a vote holds at most 255 bytes, that is 63 probes of float32");
  if (s.directions == "pool" && (o.name != "sgd" || o.momentum != 0 || o.weight_decay != 0))
    recipe.fault("spsa", "directions", "a pool of directions keeps sums in place of an optimizer's state",
                 "set optimizer.name = \"sgd\", optimizer.momentum = 0 and optimizer.weight_decay = 0");
  if (const auto eps = static_cast<float>(s.eps); eps < std::numeric_limits<float>::min() || !std::isfinite(eps))
    recipe.fault("spsa", "eps", fmt::format("spsa.eps is {}, beyond the range of f32", s.eps), "try 1e-3 to 1e-2");
  if (o.lr > 1e20) recipe.fault("optimizer", "lr", fmt::format("optimizer.lr is {}", o.lr), "at most 1e20 with spsa");
  if (o.lr * o.weight_decay > 0.5)
    recipe.fault("optimizer", "weight_decay", "a step would shrink weights to less than a half of themselves",
                 "lower optimizer.lr or optimizer.weight_decay: their product is the share that a step takes");
  if (s.transport == "file" && s.machine >= s.machines)
    recipe.fault("spsa", "machine", fmt::format("machine {} of {}", s.machine, s.machines),
                 fmt::format("machines are numbered 0 .. {}", s.machines - 1));
  if (c.run.resume != "auto" && c.run.resume != "never")
    recipe.fault("run", "resume", "an SPSA run starts from its log, not from a checkpoint file",
                 "job = \"replay\" with replay.branch starts a new run from any round");
}

void check_adapter(Recipe& recipe, const JobConfig& c) {
  if (c.adapter.method != "none" && !c.trainer.train.freeze.empty())
    recipe.fault("train", "freeze", "train.freeze is given, and an adapter leaves all weights as they are",
                 "adapter.targets names what is adapted");
}

void check_exports(Recipe& recipe, const JobConfig& c) {
  if (c.exports.peft && c.sharing.method != "none")
    recipe.fault("export", "peft", "export.peft is set, and there is no dense base that PEFT could put the adapter on",
                 "export.merged = true writes the dense model with the adapter in it");
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

void check_files(Recipe& recipe, const JobConfig& c) {
  if (job_of(c).reads_data) {
    check_data_file(recipe, c, c.data.train, "data", "train");
    check_data_file(recipe, c, c.data.eval, "data", "eval");
  }
  check_path(recipe, c.model.path, "model", "path");
  check_path(recipe, c.model.tokenizer, "model", "tokenizer");
  check_path(recipe, c.sharing.load, "sharing", "load");
  check_path(recipe, c.adapter.load, "adapter", "load");
  check_resume(recipe, c);
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
  recipe.read("spsa", c.trainer.spsa);
  recipe.read("sharing", c.sharing);
  recipe.read("adapter", c.adapter);
  recipe.read("evaluate", c.trainer.evaluate);
  recipe.read("checkpoint", c.trainer.checkpoint);
  recipe.read("log", c.trainer.log);
  recipe.read("export", c.exports);
  for (const Job& job : jobs())
    if (job.read) job.read(recipe, c);
  if (c.trainer.train.estimator == "spsa" && !recipe.has("optimizer", "momentum")) c.trainer.optimizer.momentum = 0;
  prefer_command_line(recipe, c.trainer.train);
  if (const Job& job = job_of(c); job.check) job.check(recipe, c);
  if (c.job == "train") check_spsa(recipe, c);
  check_objective(recipe, c);
  check_adapter(recipe, c);
  check_exports(recipe, c);
  check_files(recipe, c);
  check_utf8(recipe, c);
  recipe.finish();
  stay_in_own_folder(recipe, c.run);
  UnreadKeys unread = unread_keys(c);
  c.notes = std::move(unread.notes);
  c.unread = std::move(unread.names);
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
  else if (kind == "sharing")
    for (const SharingMethod& method : sharing_methods()) add(method.name, method.help);
  else if (kind == "optimizers")
    for (const OptimizerKind& optimizer : optimizer_kinds()) add(optimizer.name, optimizer.help);
  else if (kind == "models")
    for (const ModelFamily& family : model_families()) add(family.name, family.help);
  else
    throw UserError("command line", fmt::format("--list \"{}\" is not known", kind),
                    "kinds: jobs, adapters, sharing, optimizers, models");
  return text;
}

}  // namespace tessera
