#include "cli/job_config.h"

#include <cmath>
#include <limits>

#include "cli/held_values.h"
#include "cli/jobs.h"
#include "cli/recipe_rules.h"
#include "cli/unread_keys.h"
#include "core/stored_file.h"
#include "data/jsonl.h"
#include "data/tokenizer/unicode.h"
#include "model/model_config.h"
#include "model/sharing/regex_of.h"
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

void check_label_words(Recipe& recipe, const DataConfig& d) {
  const auto fault = [&](const char* key, const std::string& what, const std::string& hint) {
    recipe.fault("data", key, what, hint);
  };
  // Not whether a key is there, but whether it says something: a resolved recipe spells out every default.
  const DataConfig unset;
  if (d.label_words.empty()) {
    for (const auto& [key, is_set] :
         {std::pair{"label_field", d.label_field != unset.label_field}, std::pair{"labels", !d.labels.empty()}})
      if (is_set)
        fault(key, fmt::format("data.{} is given, but data.label_words is not", key),
              "give a word for each label, for example label_words = [\" terrible\", \" great\"]");
    return;
  }
  for (const auto& [key, is_set] : {std::pair{"text_field", d.text_field != unset.text_field},
                                    std::pair{"completion_field", d.completion_field != unset.completion_field},
                                    std::pair{"completion_template", !d.completion_template.empty()}})
    if (is_set)
      fault(key, fmt::format("data.{} and data.label_words are both given", key),
            "the label words are the completions: leave the other out");
  if (d.label_words.size() < 2)
    fault("label_words", "data.label_words has one word", "give a word for each class, at least two");
  if (!d.labels.empty() && d.labels.size() != d.label_words.size()) {
    fault("labels", fmt::format("data.labels has {} labels for {} label words", d.labels.size(), d.label_words.size()),
          "give one for each word, in the same order");
    return;
  }
  for (size_t i = 0; i < d.label_words.size(); ++i) {
    if (d.label_words[i].empty()) fault("label_words", "a label word is empty", "name what the model is to predict");
    for (size_t j = 0; j < i; ++j) {
      if (d.label_words[i] == d.label_words[j])
        fault("label_words", fmt::format("the label word \"{}\" is given twice", d.label_words[i]),
              "each class has its own");
      if (d.label(i) == d.label(j))
        fault("labels", fmt::format("the label \"{}\" is given twice", d.label(i)), "each label has one word");
    }
  }
}

void check_objective(Recipe& recipe, const JobConfig& c) {
  const Objective& objective = objective_of(c.trainer.train.objective);
  if (objective.rows == ExampleRows::choices && c.data.label_words.empty())
    recipe.fault("train", "objective",
                 fmt::format("train.objective is \"{}\", but data.label_words is not set", objective.name),
                 "give the words to choose from, for example label_words = [\" terrible\", \" great\"]");
  if (objective.gradient == HiddenGradient::none && c.trainer.train.estimator != "spsa")
    recipe.fault("train", "objective",
                 fmt::format("train.objective = \"{}\" takes forward passes only, and train.estimator is \"{}\"",
                             objective.name, c.trainer.train.estimator),
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

/// A section whose options are given and whose method is not even named: what was wanted would not happen, without a word.
/// method = "none" says that it is meant.
void require_method(Recipe& recipe, const std::string& section, std::set<std::string> said,
                    const std::string& otherwise, const std::string& methods) {
  said.erase("load");  // which has a word of its own
  if (recipe.has(section, "method") || said.empty()) return;
  recipe.fault(section, *said.begin(),
               fmt::format("{0}.{1} is given, but {0}.method is not: {2}", section, *said.begin(), otherwise),
               fmt::format("set {}.method to {}, or to \"none\" if this is meant", section, methods));
}

void check_adapter(Recipe& recipe, const JobConfig& c) {
  require_method(recipe, "adapter", said_keys(c.adapter), "all weights would be trained", "\"lora\" or \"mos\"");
  if (c.adapter.targets.empty())
    recipe.fault("adapter", "targets", "adapter.targets names no weights", "write [\"all\"], or leave it out");
  if (c.adapter.method != "none" && !c.trainer.train.freeze.empty())
    recipe.fault("train", "freeze", "train.freeze is given, and an adapter leaves all weights as they are",
                 "adapter.targets names what is adapted");
  if (c.adapter.method == "none" && !c.adapter.load.empty())
    recipe.fault("adapter", "load", "adapter.load is given, but adapter.method is \"none\"",
                 "set adapter.method and its options to the saved adapter's: its adapter.json names them");
}

void check_sharing(Recipe& recipe, const JobConfig& c) {
  const SharingConfig& s = c.sharing;
  require_method(recipe, "sharing", said_keys(s), "every weight would be a number of its own",
                 "\"rps\", \"depth\" or \"magnitude\"");
  if (s.method == "none" && !s.load.empty())
    recipe.fault("sharing", "load", "sharing.load is given, but sharing.method is \"none\"",
                 "set sharing.method and its options to the saved ones: its sharing.json names them");
  if (s.method != "none" && s.shared.empty())
    recipe.fault("sharing", "shared", "sharing.shared names no weights", "write [\"linears\"], or leave it out");
}

void check_exports(Recipe& recipe, const JobConfig& c) {
  if (c.exports.peft && c.sharing.method != "none")
    recipe.fault("export", "peft", "export.peft is set, and there is no dense base that PEFT could put the adapter on",
                 "export.merged = true writes the dense model with the adapter in it");
}

void check_generation(Recipe& recipe, const GenerateConfig& g) {
  const std::filesystem::path output = g.output;
  if (g.output.size() > 255)
    recipe.fault("generate", "output", fmt::format("generate.output is a name of {} bytes", g.output.size()),
                 "a file's name has 255 at most");
  if (output.filename() != output || output.extension() != ".jsonl" || output == "metrics.jsonl")
    recipe.fault(
        "generate", "output", fmt::format("generate.output is \"{}\"", g.output),
        "give a plain file name that ends in .jsonl, and not metrics.jsonl: it is written into the run's folder");
}

/// What a run writes about itself is UTF-8 text: its recipe, checkpoints, reports.
void check_utf8(Recipe& recipe, const JobConfig& c) {
  const auto fault = [&](const std::string& section, const std::string& key, const std::string& what) {
    recipe.fault(section, key, what + " holds bytes that are not UTF-8",
                 "rename the file or folder, or reach it through a link with another name");
  };
  for (const auto& [name, value] : recipe.flat()) {
    if (tokenizer::is_valid_utf8(value)) continue;
    const size_t dot = name.find('.');
    fault(dot == std::string::npos ? "" : name.substr(0, dot), name.substr(dot + 1), name);
  }
  const std::filesystem::path folder = c.run.dir.empty() ? std::filesystem::path("runs") / recipe.name() : c.run.dir;
  if (!tokenizer::is_valid_utf8(std::filesystem::absolute(folder).string()) &&
      tokenizer::is_valid_utf8(c.run.dir.string()))
    fault("run", "dir", "the path of the run's folder");
}

/// A fault of what a key holds, found by who reads it.
void pass_on(Recipe& recipe, const std::string& section, const std::string& key, const UserError& error) {
  const std::string name = section + "." + key;
  const bool is_named = recipe.where(section, key).ends_with(name);  // "command line: train.freeze"
  recipe.fault(section, key, is_named ? error.message() : name + ": " + error.message(), error.hint());
}

/// Regular expressions of tensors' names: whether they are any shows without a model.
void check_patterns(Recipe& recipe, const JobConfig& c) {
  const auto check = [&](const std::vector<std::string>& patterns, const char* section, const char* key) {
    for (const std::string& pattern : patterns) try {
        regex_of(pattern, "");
      } catch (const UserError& error) {
        pass_on(recipe, section, key, error);
      }
  };
  check(c.trainer.train.freeze, "train", "freeze");
  check(c.sharing.shared, "sharing", "shared");
}

void check_templates(Recipe& recipe, const DataConfig& data) {
  for (const auto& [key, text] : {std::pair{"prompt_template", &data.prompt_template},
                                  std::pair{"completion_template", &data.completion_template}})
    try {
      RecordTemplate(*text, "");
    } catch (const UserError& error) {
      pass_on(recipe, "data", key, error);
    }
}

/// What every job but train, which has a check of its own, needs to begin with.
void check_job_inputs(Recipe& recipe, const JobConfig& c) {
  const DataConfig& data = c.data;
  const bool prompts = !c.generate.prompts.empty() || !c.generate.prompts_file.empty();
  if (c.job == "evaluate" && !data.has_eval())
    recipe.fault("data", "eval", "data.eval is not set", "name the file to evaluate on");
  if (c.job == "generate" && !prompts && !data.has_eval())
    recipe.fault("generate", "", "there is nothing to continue",
                 "give generate.prompts, generate.prompts_file or data.eval");
  const bool draws_eval =
      data.eval.empty() && data.eval_fraction > 0 && (c.job == "evaluate" || (c.job == "generate" && !prompts));
  if (data.train.empty() && (c.job == "prepare" || draws_eval))
    recipe.fault("data", "train", "data.train is not set", "name a .jsonl or text file");
}

/// A path that the job reads.
void check_path(Recipe& recipe, const std::filesystem::path& path, const char* section, const char* key) {
  namespace fs = std::filesystem;
  std::error_code fault;
  const fs::file_status status = fs::status(path, fault);
  if (!path.empty() && !fs::exists(status))
    recipe.fault(section, key,
                 status.type() == fs::file_type::not_found
                     ? fmt::format("{}.{} \"{}\" does not exist", section, key, path.string())
                     : fmt::format("{}.{} cannot be followed: {}: {}", section, key, path.string(), fault.message()));
}

/// A file that the job reads records or text from.
void check_data_file(Recipe& recipe, const JobConfig& c, const std::filesystem::path& path, const char* section,
                     const char* key) {
  namespace fs = std::filesystem;
  check_path(recipe, path, section, key);
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (path.empty() || !fs::exists(status)) return;
  const std::string what = fmt::format("{}.{} \"{}\"", section, key, path.string());
  if (fs::is_directory(status)) return recipe.fault(section, key, what + " is a folder", "name a file");
  if (const std::string other = fault_of_file(path); !other.empty())
    return recipe.fault(section, key, fmt::format("{} {}", what, other),
                        "write what comes from there to a file, and name that: files are read more than once");
  try {
    const bool records = is_jsonl(path);
    if (!records && c.data.has_choices() && std::string(section) == "data")
      recipe.fault(section, key, what + " is a text file, and data.label_words is set: a text file has no labels",
                   "give a .jsonl file whose records have a label, or leave data.label_words out");
  } catch (const UserError& error) {
    recipe.fault(section, key, fmt::format("{}.{} \"{}\": {}", section, key, path.string(), error.message()),
                 error.hint());
  }
}

void check_files(Recipe& recipe, const JobConfig& c) {
  if (c.job != "replay" && c.job != "export") {  // which read no data
    check_data_file(recipe, c, c.data.train, "data", "train");
    check_data_file(recipe, c, c.data.eval, "data", "eval");
  }
  if (c.job == "generate" && c.generate.prompts.empty())
    check_data_file(recipe, c, c.generate.prompts_file, "generate", "prompts_file");
  check_path(recipe, c.model.path, "model", "path");
  check_path(recipe, c.model.tokenizer, "model", "tokenizer");
  check_path(recipe, c.sharing.load, "sharing", "load");
  check_path(recipe, c.adapter.load, "adapter", "load");
  if (c.job == "replay") check_path(recipe, c.replay.log, "replay", "log");
  check_resume(recipe, c);
  check_cache(recipe, c.data.cache);
}

/// Folders are told as the user would have to type them: one that was given by a relative path is one from the working directory.
void tell_as_typed(const Recipe& recipe, const char* section, const char* key, std::filesystem::path& path) {
  if (!path.empty() && !path.has_filename()) path = path.parent_path();  // "runs/a/" is "runs/a"
  const std::filesystem::path typed = recipe.given_text(section, key);
  const bool is_typed_here = recipe.where(section, key).starts_with("command line");
  if (typed.empty() || typed.is_absolute() || (!is_typed_here && recipe.folder().is_absolute())) return;
  const auto relative = path.lexically_proximate(std::filesystem::current_path());
  if (relative.filename() != "." && relative.filename() != "..") path = relative;
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
  recipe.read("generate", c.generate);
  recipe.read("replay", c.replay);
  if (c.model.path.empty()) recipe.fault("model", "path", "model.path is not set", "name a Hugging Face folder");
  if (c.trainer.train.estimator == "spsa" && !recipe.has("optimizer", "momentum")) c.trainer.optimizer.momentum = 0;
  prefer_command_line(recipe, c.trainer.train);
  if (c.job == "train") check_training(recipe, c);
  if (c.job == "train") check_spsa(recipe, c);
  check_held_values(recipe, c);
  check_label_words(recipe, c.data);
  check_objective(recipe, c);
  check_sharing(recipe, c);
  check_adapter(recipe, c);
  check_exports(recipe, c);
  check_generation(recipe, c.generate);
  check_patterns(recipe, c);
  check_templates(recipe, c.data);
  check_job_inputs(recipe, c);
  check_files(recipe, c);
  check_utf8(recipe, c);
  recipe.finish();
  stay_in_own_folder(recipe, c.run);
  tell_as_typed(recipe, "run", "dir", c.run.dir);
  tell_as_typed(recipe, "replay", "log", c.replay.log);
  tell_as_typed(recipe, "replay", "branch", c.replay.branch);
  tell_as_typed(recipe, "spsa", "shared", c.trainer.spsa.shared);
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
