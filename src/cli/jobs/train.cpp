// job = "train": the main job, from a recipe to a trained, saved adapter or model.

#include <algorithm>

#include "cli/agreement.h"
#include "cli/datasets.h"
#include "cli/estimator_run.h"
#include "cli/folded_run.h"
#include "cli/going_on.h"
#include "cli/inputs.h"
#include "cli/model_settings.h"
#include "cli/notices.h"
#include "cli/opened_folder.h"
#include "cli/outputs.h"
#include "cli/plan.h"
#include "cli/rates.h"
#include "cli/recipe_rules.h"
#include "cli/results.h"
#include "cli/run_rules.h"
#include "cli/spsa_run.h"
#include "cli/stopped.h"
#include "cli/summary.h"
#include "cli/trained_weights.h"
#include "comm/stop_together.h"
#include "core/error.h"
#include "core/stop.h"
#include "io/files.h"
#include "model/export.h"
#include "train/estimator.h"
#include "train/optimizers/optimizer.h"
#include "train/report_html.h"
#include "train/steps.h"
#include "train/trainer.h"

namespace tessera {

namespace fs = std::filesystem;
namespace {

void say_stopped(const JobInputs& in, Reporter& report, const RunFolder& folder, int64_t step) {
  const std::string how = how_it_goes_on(in, folder.path());
  if (step == 0) return report.say("stopped before step 1; " + how);
  naming_what_is_kept(fmt::format("the checkpoint of step {} is whole; {}", step, how),
                      [&] { write_report(folder.path()); });
  report.say(fmt::format("stopped after step {}; {}", step, how));
}

/// What is there whatever comes after it, and how the rest is made.
std::string kept_results(const JobInputs& in, const fs::path& run, const std::vector<Written>& written) {
  std::string folders;
  for (const Written& result : written)
    folders += fmt::format("{}\"{}\"", folders.empty() ? "" : ", ", result.folder.string());
  return fmt::format("{}; {}", folders.empty() ? "the training is done" : "the results are whole in " + folders,
                     how_it_goes_on(in, run));
}

/// Rank 0 exports; all leave when a stop is asked for meanwhile.
std::vector<Written> export_together(const JobInputs& in, const Context& ctx, Model& model, const RunFolder* folder,
                                     Reporter& report) {
  std::vector<Written> written;
  bool is_left = false;
  try {
    if (folder)
      written = export_results(in, ctx, model, folder->path(), [&](const std::string& line) { report.say(line); });
  } catch (const Stopped&) {
    is_left = true;
  }
  leave_together(in.world, is_left, "exporting");
  return written;
}

/// Trains in a run's folder, which rank 0 has.
int train_in(const JobInputs& in, RunFolder* folder, const fs::path& run_path, const MemoryPlan& memory) {
  std::vector<std::string> notices;
  const fs::path start = choose_start(in, folder, notices);
  const Rules rules = rules_of_run(in, start, run_path);
  Model::Settings settings = model_settings(in, in.config.trainer.train.sequence_length);
  settings.sharing.rules = rules;
  Model model(settings);  // its faults show before data is prepared
  if (folder) {
    if (writes_model(in, model)) refuse_own_folder(*folder / "model", in.config.model.path);
    if (writes_model(in, model)) refuse_foreign_model(*folder / "model");
    if (model.adapter() && in.config.exports.peft) refuse_foreign_peft(*folder / "peft");
  }
  Datasets sets = load_datasets(in, true, rules);
  require_known_tokens(in, model, sets);
  const int64_t steps = total_steps(in.config.trainer, *sets.train, in.share.count, rules);
  const auto going = going_on(in, folder, start, steps);
  if (going) require_same_run(in, *sets.train, *going);
  if (folder) {
    if (const auto saved = meta_of_log(run_path))
      require_same_run(in, *sets.train, {.saved = *saved, .file = run_path / "run.json"});
    else
      refuse_other_estimators_run(in, run_path);
  }
  if (already_done(in, folder, start, steps)) {
    if (sets.eval) tell(in, other_figures_notice(in, folder, start, *sets.eval));
    if (folder) write_report(folder->path());  // which may have failed
    return kDone;
  }

  Reporter report(folder,
                  in.world.rank() == 0 ? progress_kind(in.config.trainer.log, in.quiet, in.launched) : Progress::none);
  if (const std::string notice = folder ? folder->notice() : ""; !notice.empty()) notices.push_back(notice);
  notices.insert(notices.end(), sets.notices.begin(), sets.notices.end());
  if (going && rules < Rules::third)
    notices.emplace_back(
        "the run began with an older version, whose sums had other last bits: its steps from here on are in the order of "
        "docs/determinism.md");
  for (const std::string& notice : notices) report.say(notice);
  start_from_saved_adapter(in.config, model);
  require_agreement(in, model, sets);
  const std::string base = folder ? model.start_fingerprint() : "";
  if (going) require_same_content(in, model, base, *going);
  const std::string start_values = going && !going->saved.start_values.empty() ? going->saved.start_values
                                   : folder                                    ? values_hash(model.pool().trainable())
                                                                               : "";
  const Compute compute(compute_choice(in), memory.activations);
  const Context& ctx = compute;

  if (folder) keep_recipe(in, *folder / "recipe.toml");
  say_plan(report, in, model, memory, sets, steps);
  if (const std::string notice = schedule_notice(in.config.trainer.optimizer, steps, rules); !notice.empty())
    report.say(notice);
  if (going)
    if (const std::string notice = rate_notice(in, *sets.train, *going); !notice.empty()) report.say(notice);

  const auto prepared = estimator_run(in.config).prepare(
      {.in = in, .model = model, .data = *sets.train, .base = base, .rules = rules, .path = run_path, .ctx = ctx});
  const TrainOutcome outcome = run_training({.config = in.config.trainer,
                                             .model = model,
                                             .data = *sets.train,
                                             .eval = sets.eval ? &*sets.eval : nullptr,
                                             .world = in.world,
                                             .ctx = ctx,
                                             .report = report,
                                             .folder = folder,
                                             .recipe = in.recipe.flat(),
                                             .base_fingerprint = base,
                                             .start_values = start_values,
                                             .resume_from = start,
                                             .stop_requested = stop_requested,
                                             .run_path = run_path,
                                             .prepared = prepared.get(),
                                             .rules = rules,
                                             .share = in.share});
  if (outcome.stopped) {
    if (folder) say_stopped(in, report, *folder, outcome.meta.step);
    return kStopped;
  }
  std::vector<Written> written = export_together(in, ctx, model, folder, report);
  if (sets.eval) evaluate_written(in, ctx, *sets.eval, outcome.meta.last_eval, written);
  if (folder)
    naming_what_is_kept(kept_results(in, folder->path(), written), [&] {
      say_outcome(report, in, model, outcome, written);
      report.metric(done_line(in, outcome, model, written));
      write_report(folder->path());
      report.say(fmt::format("report: {}", (*folder / "report.html").string()));
    });
  return kDone;
}

/// A dense model that does not hold the trained values bit for bit is read back and evaluated,
/// in the arena of the training.
void plan_reading_back(const JobInputs& in, Model& model, MemoryPlan& memory) {
  const DType dtype = model.export_dtype();
  const bool as_trained = dtype == DType::f32 && !model.adapter() && !model.is_shared();
  if (!in.config.data.has_eval() || !writes_model(in, model) || as_trained) return;
  Model::Settings settings = model_settings(in, in.config.trainer.train.sequence_length);
  settings.model.init = "random";
  settings.model.dtype = name_of(dtype);
  settings.sharing = {};
  settings.adapter = {};
  settings.freeze = {};
  settings.train_base = settings.gradients = false;
  const JobPlan dense = plan_of_model(settings);
  memory.read_back = dense.memory.weights_and_gradients;
  memory.activations = std::max(memory.activations, plan_evaluation(in, *dense.model));
}

JobPlan plan_train(const JobInputs& in) {
  JobPlan plan = plan_of_model(model_settings(in, in.config.trainer.train.sequence_length));
  Model& model = *plan.model;
  plan.memory.activations = plan_evaluation(in, model);
  const Estimator& estimator = estimator_of(in.config.trainer);
  const StepMemory step = estimator.plan(in.config.trainer, model, in.share.count, in.threads);
  plan.memory.optimizer = step.optimizer;
  plan.memory.activations = std::max(plan.memory.activations, step.activations);
  plan.memory.assembled += step.copies;
  // The optimizer's state is given back before results are written.
  plan.memory.results = std::max(step.handing_over, plan_results(in, model) - step.optimizer);
  plan_reading_back(in, model, plan.memory);
  plan.memory.data = plan_data(in, true);
  plan.wire_bytes = estimator.wire_bytes(model);
  return plan;
}

std::string smaller_training(const JobConfig& config, const MemoryPlan& plan) {
  std::vector<std::string> ways;
  if (matters(plan.activations, plan)) ways.push_back(lower_rows(config));
  const LessMemory less = estimator_of(config.trainer).less_memory(config.trainer);
  if (!less.way.empty() && matters(plan.activations + (less.lowers_copies ? plan.assembled : 0), plan))
    ways.push_back(less.way);
  if (const OptimizerKind* smaller = smaller_optimizer(config.trainer.optimizer);
      smaller && matters(plan.optimizer, plan))
    ways.push_back(fmt::format("set optimizer.name = \"{}\"", smaller->name));
  if (matters(plan.weights_and_gradients, plan) && config.adapter.method == "none")
    ways.push_back("train an adapter (adapter.method = \"lora\")");
  if (matters(plan.data, plan) && plan.data > 0) ways.push_back("lower data.max_documents");
  std::string hint = ways.empty() ? "use a machine with more memory" : ways[0];
  for (size_t i = 1; i < ways.size(); ++i) hint += (i + 1 == ways.size() ? ", or " : ", ") + ways[i];
  return hint;
}

int train(const JobInputs& in) {
  estimator_of(in.config.trainer).check_ranks(in.recipe, in.world.size());
  require_free_outputs(in);
  const MemoryPlan memory = require_memory(in, plan_train(in));
  const std::unique_ptr<RunFolder> folder = open_run_folder(in);
  const fs::path run_path = broadcast_text(in.world, folder ? folder->path().string() : "");
  if (folder) refuse_training_into_compression(in, folder->path());
  if (folder) refuse_overwritten_inputs(in, folder->path());
  try {
    return train_in(in, folder.get(), run_path, memory);
  } catch (const Stopped& stop) {  // before the first step, or behind the last
    if (folder && !in.quiet) fmt::print(stderr, "{}; {}\n", stop.what(), how_it_goes_on(in, run_path));
    return kStopped;
  }
}

void check_training(Recipe& recipe, const JobConfig& c) {
  refuse_two_lengths(recipe, c.trainer.train);
  if (!recipe.has("train", "steps") && !recipe.has("train", "epochs"))
    recipe.fault("train", "", "neither train.steps nor train.epochs is given",
                 "give one of them, for example steps = 1000");
  require_train_data(recipe, c.data);
}

}  // namespace

Job train_job() {
  return {.name = "train",
          .help = "fine-tune or train a model",
          .run = train,
          .plan = plan_train,
          .smaller = smaller_training,
          .reads_data = true,
          .samples = {Split::train, Split::eval},
          .trains = true,
          .moves_values = true,
          .results = JobResults::all,
          .frees_results = true,
          .check = check_training};
}

}  // namespace tessera
