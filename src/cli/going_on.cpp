#include "cli/going_on.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <map>

#include "cli/estimator_run.h"
#include "cli/folded_run.h"
#include "cli/spsa_run.h"
#include "core/error.h"
#include "core/shell_word.h"
#include "io/hub_cache.h"
#include "io/output.h"
#include "model/config_fingerprint.h"
#include "score/evaluation.h"
#include "train/divergence.h"
#include "train/estimator.h"
#include "train/optimizers/optimizer.h"
#include "train/spsa/branch.h"
#include "train/spsa/figures.h"
#include "train/spsa/spsa_estimator.h"
#include "train/steps.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

std::string section_of(const std::string& key) { return key.substr(0, key.rfind('.')); }

/// Every key at its default.
const std::map<std::string, std::string>& default_values() {
  static const std::map<std::string, std::string> values = [] {
    Recipe recipe = Recipe::from_text("", "");
    JobConfig config;
    try {
      read_job(recipe, config);
    } catch (const UserError&) {  // a recipe that names no model is not in order
    }
    const auto flat = recipe.flat();
    return std::map<std::string, std::string>(flat.begin(), flat.end());
  }();
  return values;
}

/// A key whose value is not the run's.
struct Difference {
  std::string key, before, now;
  OnResume on_resume = OnResume::same;
  std::string text() const { return change_in_words(key, before, now); }
  bool names_contents() const { return on_resume == OnResume::same_data || on_resume == OnResume::same_weights; }
  bool decides_rate() const { return on_resume == OnResume::longer || on_resume == OnResume::rate; }
  bool may_be_elsewhere() const { return decides_rate() || on_resume == OnResume::in_new_folder; }
  bool may_be_in_new_folder() const { return may_be_elsewhere() || on_resume == OnResume::from_checkpoint; }
  bool may_be_in_branch() const { return may_be_elsewhere() || on_resume == OnResume::in_branch; }
};

/// Among the keys that somebody reads. A key that the run's version of the program did not have stood at its default.
std::vector<Difference> differences(const JobInputs& in, const CheckpointMeta& saved) {
  std::vector<Difference> found;
  const std::map<std::string, std::string> before(saved.recipe.begin(), saved.recipe.end());
  for (const auto& [key, now] : in.recipe.flat()) {
    if (in.config.unread.count(key) > 0) continue;
    const auto there = before.find(key);
    const auto standard = default_values().find(key);
    const std::string old = there != before.end()                ? there->second
                            : standard != default_values().end() ? standard->second
                                                                 : "";
    if (old != now) found.push_back({key, old, now, in.recipe.on_resume(key)});
  }
  return found;
}

[[noreturn]] void refuse_recipe(const fs::path& file, const std::vector<Difference>& found, const std::string& cure) {
  std::string text;
  for (const Difference& difference : found) text += difference.text() + "\n";
  throw UserError(file.string(), "this run cannot go on with another recipe", text + cure);
}

std::string cure_of(const JobInputs& in, const std::vector<Difference>& found, const GoingOn& going) {
  const std::string undo_or_start_anew = "undo the change, or " + start_anew(in);
  const fs::path& file = going.file;
  if (file.filename() == "run.json")
    return std::all_of(found.begin(), found.end(), [](const Difference& d) { return d.may_be_in_branch(); })
               ? fmt::format("undo the change, {}, or go on from a round of it in a branch: {}", start_anew(in),
                             branch_command(spsa_config(in.config.trainer)))
               : undo_or_start_anew;
  const bool is_longer = going.steps >= going.saved.step;  // a checkpoint has no way back
  const bool may =
      std::all_of(found.begin(), found.end(), [](const Difference& d) { return d.may_be_in_new_folder(); });
  const std::string more = going.steps == going.saved.step ? ", with more train.steps" : "";
  return may && is_longer ? fmt::format("{}\nor go on with the change in a new folder{}: {}", undo_or_start_anew, more,
                                        shell_word("run.resume=" + file.string()))
                          : undo_or_start_anew;
}

/// [train] and [optimizer] of a run, as far as this version of the program knows them.
TrainerConfig config_of(const CheckpointMeta& saved) {
  TrainerConfig config;
  std::string text;
  for (const std::string section : {"train", "optimizer"}) {
    text += "[" + section + "]\n";
    for (const auto& [key, value] : saved.recipe)
      if (section_of(key) == section && !value.empty()) text += key.substr(section.size() + 1) + " = " + value + "\n";
  }
  Recipe recipe = Recipe::from_text(text, "the recipe in the checkpoint");
  recipe.read("train", config.train);
  recipe.read("optimizer", config.optimizer);
  return config;
}

/// Of a model in the cache, whose name leads to another snapshot now: the one that the run began with, if it is still
/// there.
std::string way_to_old_snapshot(const JobInputs& in, const CheckpointMeta& saved) {
  const auto is_path = [](const auto& entry) { return entry.first == "model.path"; };
  const auto found = std::ranges::find_if(saved.recipe, is_path);
  if (found == saved.recipe.end() || found->second.empty()) return "";
  ModelOptions options;
  Recipe recipe = Recipe::from_text("[model]\npath = " + found->second, "the recipe in the checkpoint");
  recipe.read("model", options);
  const fs::path &before = options.path, &now = in.config.model.path;
  const std::string name = hub_name_of(before);
  std::error_code ignored;
  if (name.empty() || name != hub_name_of(now) || before == now || !fs::is_directory(before, ignored)) return "";
  return fmt::format("the cache has a newer snapshot of {} now; the one that the run began with is still there: {}\n",
                     name, shell_word("model.path=" + before.string()));
}

void require_same_base(const JobInputs& in, Model& model, const std::string& base, const CheckpointMeta& saved,
                       const fs::path& file) {
  const std::string what = "this run cannot go on with another base model";
  if (const std::string config = config_fingerprint(model.config());
      !saved.config_fingerprint.empty() && saved.config_fingerprint != config)
    throw UserError(
        file.string(), what,
        way_to_old_snapshot(in, saved) +
            "model.path has another config.json now: sizes, heads, rms_norm_eps, rope, tied weights, biases or windows are others. Put "
            "it back, or " +
            start_anew(in));
  if (saved.base_fingerprint != base)
    throw UserError(
        file.string(), what,
        way_to_old_snapshot(in, saved) +
            fmt::format(
                "model.path has another config.json or other weights now, or they are shared in another way (it was {}, now "
                "{}): put them back, or {}",
                saved.base_fingerprint.empty() ? "of its own" : saved.base_fingerprint,
                base.empty() ? "of its own" : base, start_anew(in)));
}

/// The "done" line of a run that is continued where it lies.
std::optional<Json> done_in(const JobInputs& in, const RunFolder* folder) {
  if (!folder || in.config.run.resume != "auto") return std::nullopt;
  return MetricsFile(*folder / "metrics.jsonl").done();
}

/// A finished run needs no checkpoint any more.
std::optional<fs::path> newest_in(const fs::path& run, bool is_done, std::vector<std::string>& notices) {
  try {
    return newest_checkpoint(run / "checkpoints", notices);
  } catch (const UserError&) {
    if (!is_done) throw;
    return std::nullopt;
  }
}

}  // namespace

std::string start_anew(const JobInputs& in) {
  const Estimator::Anew anew = estimator_of(in.config.trainer).anew();
  return fmt::format("start anew with {}another {}", anew.by_resume ? "run.resume=never or " : "", anew.places);
}

std::string change_in_words(const std::string& key, const std::string& before, const std::string& now) {
  const auto told = [](const std::string& value) { return value.empty() ? std::string("not set") : value; };
  return fmt::format("{} was {}, now {}", key, told(before), told(now));
}

bool names_checkpoint(const RunConfig& run) { return run.resume != "auto" && run.resume != "never"; }

fs::path choose_start(const JobInputs& in, const RunFolder* folder, std::vector<std::string>& notices) {
  std::string chosen;
  if (folder) {
    const std::string& resume = in.config.run.resume;
    if (resume == "auto") {
      if (const auto newest = newest_in(folder->path(), done_in(in, folder).has_value(), notices))
        chosen = newest->string();
    } else if (resume != "never") {
      chosen = resume;
    }
  }
  return broadcast_text(in.world, chosen);
}

bool already_done(const JobInputs& in, const RunFolder* folder, const fs::path& start, int64_t steps) {
  std::array<double, 1> done{0};
  if (const auto line = done_in(in, folder)) {
    const bool can_be_lengthened = estimator_run(in.config).can_be_lengthened();
    const int64_t step = line->at("step").as_integer();
    if (can_be_lengthened && step < steps && start.empty()) {
      std::vector<std::string> ignored;
      newest_checkpoint(*folder / "checkpoints", ignored);  // names those that are there and damaged
      throw UserError(
          (*folder / "checkpoints").string(),
          fmt::format("this run ended with step {}, {} steps are asked for, and it has no checkpoint to go on "
                      "from",
                      step, steps),
          "put back a copy, or train anew with run.resume=never");
    }
    if (!can_be_lengthened || step >= steps) {
      print_out("{}\n", line->dump());
      done[0] = 1;
    }
  }
  in.world.all_reduce_max(std::span<double>(done));
  return done[0] > 0;
}

namespace {

/// Which held-out rows a finished run's figures are of; empty when that is not known.
std::string evaluation_set_of(const fs::path& run, const fs::path& start) {
  if (!start.empty()) return read_checkpoint_meta(start).eval_set;
  const auto figures = read_figures(run, std::numeric_limits<int64_t>::max());
  return figures ? figures->eval_set : "";
}

/// What the run's command takes to evaluate what was trained:
/// not every run has left its results in a form that is loaded.
std::string how_to_evaluate(const JobInputs& in, const fs::path& run, const fs::path& start) {
  const fs::path results = in.config.adapter.method != "none"   ? run / "adapter" / "adapter.json"
                           : in.config.sharing.method != "none" ? run / "sharing" / "sharing.json"
                                                                : run / "model" / "model.safetensors";
  const bool from_checkpoint = !fs::exists(results) && !start.empty();
  return "job=evaluate" + (from_checkpoint ? " " + shell_word("run.resume=" + start.string()) : "");
}

}  // namespace

std::string other_figures_notice(const JobInputs& in, const RunFolder* folder, const fs::path& start,
                                 const PackedDataset& eval) {
  if (!folder) return "";
  const std::string were = evaluation_set_of(folder->path(), start);
  if (were.empty() || were == evaluation_set(eval, in.config.trainer.evaluate.rows)) return "";
  return fmt::format(
      "note: the printed figures are those of the finished run, of other held-out rows than data.eval and evaluate.rows name "
      "now: the same command with {} tells those of these rows",
      how_to_evaluate(in, folder->path(), start));
}

namespace {

/// @param is_done  the run in the folder has ended with a "done" line
GoingOn from_checkpoint(const JobInputs& in, const fs::path& file, int64_t steps, bool is_done) {
  GoingOn going{.saved = read_chosen_checkpoint(file),
                .file = file,
                .steps = steps,
                .is_new_folder = names_checkpoint(in.config.run)};
  const int64_t asked = config_of(going.saved).train.steps.value_or(-1);
  going.is_finished = !going.is_new_folder && (is_done || asked == going.saved.step);
  return going;
}

}  // namespace

std::optional<GoingOn> going_on(const JobInputs& in, const RunFolder* folder, const fs::path& start, int64_t steps) {
  if (!folder || start.empty()) return std::nullopt;
  return from_checkpoint(in, start, steps, done_in(in, folder).has_value());
}

namespace {

void require_same_keys(const JobInputs& in, const GoingOn& going) {
  std::vector<Difference> found;
  for (const Difference& difference : differences(in, going.saved)) {
    const OnResume on_resume = difference.on_resume;
    if (on_resume == OnResume::free || difference.names_contents()) continue;
    if (going.is_new_folder && difference.may_be_in_new_folder()) continue;
    if (going.is_finished && on_resume == OnResume::longer && going.steps > going.saved.step) continue;
    found.push_back(difference);
  }
  if (!found.empty()) refuse_recipe(going.file, found, cure_of(in, found, going));
}

}  // namespace

void look_at_run(const JobInputs& in, const fs::path& run) {
  if (in.config.run.resume == "never") return;
  if (!names_checkpoint(in.config.run)) refuse_training_into_compression(in, run);
  if (const auto saved = meta_of_log(run)) require_same_keys(in, {.saved = *saved, .file = run / "run.json"});
  fs::path file = in.config.run.resume;
  bool is_done = false;
  if (!names_checkpoint(in.config.run)) {
    std::vector<std::string> ignored;
    is_done = MetricsFile(run / "metrics.jsonl").done().has_value();
    if (!is_done) estimator_run(in.config).look(in, run);
    const auto newest = newest_in(run, is_done, ignored);
    if (!newest) return;
    file = *newest;
  }
  const int64_t steps = in.config.trainer.train.steps.value_or(std::numeric_limits<int64_t>::max());
  const GoingOn going = from_checkpoint(in, file, steps, is_done);
  if (going.is_new_folder && going.steps < going.saved.step)
    throw UserError(in.recipe.where("train", "steps"),
                    fmt::format("the run has {} steps behind it, train.steps is {}", going.saved.step, going.steps),
                    "ask for more steps, or " + start_anew(in));
  require_same_keys(in, going);
}

void require_same_run(const JobInputs& in, const PackedDataset& data, const GoingOn& going) {
  require_same_keys(in, going);
  if (going.saved.data_hash == data.hash()) return;
  const bool has_log = going.file.filename() == "run.json";  // a branch of it takes other data, no checkpoint does
  throw UserError(going.file.string(), "this run cannot go on with other training data",
                  "data.train has other contents now, or model.tokenizer reads it in another way: " +
                      (has_log ? cure_of(in, {}, going) : "undo the change, or " + start_anew(in)));
}

void require_same_content(const JobInputs& in, Model& model, const std::string& base, const GoingOn& going) {
  require_same_base(in, model, base, going.saved, going.file);
  if (going.file.filename() == "run.json") return;  // the log's header holds the digest of the values it begins with
  if (going.saved.start_values.empty())
    return;  // of an earlier version: what is trained comes from the checkpoint anyway
  std::vector<Difference> moved;
  for (const Difference& difference : differences(in, going.saved))
    if (difference.on_resume == OnResume::same_weights) moved.push_back(difference);
  if (moved.empty() || going.saved.start_values == values_hash(model.pool().trainable())) return;
  refuse_recipe(going.file, moved,
                fmt::format("what is there is not what the run began with: undo the change, or {}", start_anew(in)));
}

void require_same_model(const JobInputs& in, Model& model, const CheckpointMeta& saved, const fs::path& file) {
  std::string text;
  for (const Difference& difference : differences(in, saved))
    if (difference.on_resume == OnResume::same_model) text += difference.text() + "\n";
  if (!text.empty())
    throw UserError(file.string(), "the checkpoint belongs to another recipe", text + "set them as the run had them");
  require_same_base(in, model, model.start_fingerprint(), saved, file);
}

std::string rate_notice(const JobInputs& in, const PackedDataset& data, const GoingOn& going) {
  std::string text;
  for (const Difference& difference : differences(in, going.saved))
    if (difference.decides_rate()) text += difference.text() + "; ";
  if (text.empty() || going.steps <= going.saved.step) return "";
  const TrainerConfig before = config_of(going.saved);
  const Rules rules = going.saved.rules;
  const int64_t step = going.saved.step,
                old_steps = total_steps(before, data, static_cast<int>(going.saved.ranks), rules);
  return fmt::format("{}the learning rate of step {} is {:.3g}, that of step {} was {:.3g}", text, step + 1,
                     learning_rate(in.config.trainer.optimizer, step + 1, going.steps), step,
                     learning_rate(before.optimizer, step, old_steps));
}

}  // namespace tessera
