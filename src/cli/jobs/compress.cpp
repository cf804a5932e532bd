// job = "compress": makes a trained model smaller in depth, stage by stage (src/compress/).

#include <algorithm>

#include "cli/agreement.h"
#include "cli/datasets.h"
#include "cli/estimator_run.h"
#include "cli/inputs.h"
#include "cli/model_settings.h"
#include "cli/notices.h"
#include "cli/opened_folder.h"
#include "cli/outputs.h"
#include "cli/plan.h"
#include "cli/recipe_rules.h"
#include "cli/unread_keys.h"
#include "comm/data_groups.h"
#include "comm/stop_together.h"
#include "compress/gate_units.h"
#include "compress/product_rate.h"
#include "compress/run_stages.h"
#include "core/error.h"
#include "core/stop.h"
#include "io/output.h"
#include "model/fold/plan_file.h"
#include "model/fold/plan_shapes.h"
#include "train/reporter.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

const FoldConfig& config_of(const JobInputs& in) { return in.config.own.of<FoldConfig>(); }

/// The original: frozen, without the adapter, which is the cure's.
Model::Settings base_settings(const JobInputs& in) {
  Model::Settings settings = model_settings(in, in.config.trainer.train.sequence_length);
  settings.adapter = {};
  settings.train_base = settings.gradients = false;
  settings.freeze = {};
  return settings;
}

/// The recipe's keys as text. Gates are trained for fold.remove unless fold.gate_remove says otherwise.
std::map<std::string, std::string> keys_of(const JobInputs& in) {
  const auto flat = in.recipe.flat();
  std::map<std::string, std::string> keys(flat.begin(), flat.end());
  if (!config_of(in).gate_remove) keys["fold.gate_remove"] = keys.at("fold.remove");
  return keys;
}

StageSizes sizes_of(const JobInputs& in, Model& model) {
  return {.fold = config_of(in),
          .train = in.config.trainer.train,
          .model = model,
          .ranks = in.world.size(),
          .threads = in.threads};
}

/// @throws UserError when a rate of the recipe leaves too few blocks, or its plan is not of this model
void require_blocks_left(const JobInputs& in, Model& model) {
  const FoldConfig& fold = config_of(in);
  const int64_t layers = model.decoder().num_layers();
  if (!fold.plan.empty()) {
    const FoldPlan plan =
        read_fold_plan(fold.plan, FoldBase{.fingerprint = {}, .layers = layers, .model_type = model.config().family});
    return require_equal_shapes(plan, shapes_of(model.decoder().specs()), fold.plan.string());
  }
  blocks_to_remove(fold.remove, layers, protected_blocks(fold), in.recipe.places("fold"));
  blocks_to_remove(fold.trained_remove(), layers, protected_blocks(fold), in.recipe.places("fold"), "gate_remove");
}

JobPlan plan_stages(const JobInputs& in) {
  JobPlan plan = plan_of_model(base_settings(in));
  require_blocks_left(in, *plan.model);
  for (const Stage* stage : asked_stages(config_of(in))) {
    const StageCost cost = stage->cost(sizes_of(in, *plan.model));
    plan.memory.activations = std::max(plan.memory.activations, cost.bytes);
    plan.memory.results = std::max(plan.memory.results, cost.held);
  }
  plan.memory.data = plan_data(in, true);
  return plan;
}

/// What --check sees of a journal: what its stages have read of the recipe. Base and data are compared by the job.
void look_at_stages(const JobInputs& in, Model*) {
  look_at_journal(own_run_path(in) / "compress", config_of(in), keys_of(in));
}

/// A line a stage: what it reads, computes and holds, and how long that takes at the rate of this machine's products.
std::vector<std::string> tell_stages(const JobInputs& in, Model& model) {
  const double rate = product_rate(compute_choice(in)) * in.world.size();
  std::vector<std::string> lines;
  for (const Stage* stage : asked_stages(config_of(in))) {
    const StageCost cost = stage->cost(sizes_of(in, model));
    lines.push_back(fmt::format("stage {:<10} {} tokens, {:.3g} GFLOP, about {:.3g} s, {}", stage->name, cost.tokens,
                                cost.flop * 1e-9, cost.flop / rate, megabytes(cost.bytes + cost.held)));
  }
  return lines;
}

/// What --check shows: the plan, and its stages.
JobPlan plan_compress(const JobInputs& in) {
  JobPlan plan = plan_stages(in);
  for (std::string& line : tell_stages(in, *plan.model)) plan.notes.push_back(std::move(line));
  return plan;
}

std::string smaller_compression(const JobConfig& config, const MemoryPlan& plan) {
  std::string hint = matters(plan.activations, plan) ? lower_rows(config) : "use a machine with more memory";
  if (matters(plan.activations, plan) && !config.trainer.train.checkpoint_activations)
    hint += ", or set train.checkpoint_activations = true";
  return hint;
}

void say_result(const fs::path& run, const std::vector<StageReport>& reports) {
  Json stages = Json::array();
  for (const StageReport& report : reports)
    stages.push_back(Json::object()
                         .set("stage", report.name)
                         .set("file", (run / "compress" / report.file).string())
                         .set("seconds", report.seconds)
                         .set("tokens", report.tokens));
  print_out("{}\n", Json::object().set("run", run.string()).set("stages", std::move(stages)).dump());
}

int compress_in(const JobInputs& in, const RunFolder* folder, const fs::path& run, const MemoryPlan& memory) {
  Model model(base_settings(in));
  const Datasets sets = load_datasets(in, true);
  require_known_tokens(in, model, sets);
  Reporter report(folder,
                  in.world.rank() == 0 ? progress_kind(in.config.trainer.log, in.quiet, in.launched) : Progress::none);
  for (const std::string& notice : sets.notices) report.say(notice);
  if (const std::string notice = length_notice(model, "rows", in.config.trainer.train.sequence_length); !notice.empty())
    report.say(notice);
  require_agreement(in, model, sets);
  const Compute compute(compute_choice(in), memory.activations);
  const auto reports = run_stages({.fold = config_of(in),
                                   .train = in.config.trainer.train,
                                   .checkpoint = in.config.trainer.checkpoint,
                                   .keys = keys_of(in),
                                   .where_fold = in.recipe.places("fold"),
                                   .model = model,
                                   .data = *sets.train,
                                   .world = in.world,
                                   .ctx = compute,
                                   .folder = run / "compress",
                                   .say = [&](const std::string& line) { report.say(line); },
                                   .stop_requested = stop_requested,
                                   .begin = [&] { keep_recipe(in, run / "recipe.toml"); },
                                   .share = in.share});
  if (folder) say_result(run, reports);
  return kDone;
}

int compress(const JobInputs& in) {
  require_groups_of_one(in.world, in.share);
  require_free_outputs(in);
  const MemoryPlan memory = require_memory(in, plan_stages(in));
  const std::unique_ptr<RunFolder> folder = open_run_folder(in);
  const fs::path run = broadcast_text(in.world, folder ? folder->path().string() : "");
  if (folder) refuse_overwritten_inputs(in, run);
  try {
    return compress_in(in, folder.get(), run, memory);
  } catch (const Stopped& stop) {
    if (folder && !in.quiet) fmt::print(stderr, "{}; the same command goes on\n", stop.what());
    return kStopped;
  }
}

void check_compression(Recipe& recipe, const JobConfig& c) {
  const FoldConfig& fold = c.own.of<FoldConfig>();
  require_train_data(recipe, c.data);
  if (c.sharing.method != "none")
    recipe.fault("sharing", "method",
                 fmt::format("sharing.method is \"{}\", and job = \"compress\" takes a model whose weights stand for "
                             "themselves",
                             c.sharing.method),
                 "export the model first (job = \"export\"), and name the folder in model.path");
  if (c.run.resume != "auto" && c.run.resume != "never")
    recipe.fault("run", "resume", "run.resume names a checkpoint, and job = \"compress\" goes on from its journal",
                 "leave it out; fold.reuse = RUN takes over finished stages of another run");
  if (fold.gate_estimator != "backprop")
    recipe.fault("fold", "gate_estimator", "fold: gates cannot be trained by spsa yet",
                 "set fold.gate_estimator = \"backprop\"");
  check_path(recipe, fold.plan, "fold", "plan");
  check_path(recipe, fold.reuse, "fold", "reuse");
  if (asked_stages(fold).empty())
    recipe.fault("fold", fold.plan.empty() ? "until" : "plan", "fold: no stage is left to run",
                 "fold.plan takes the place of the stages up to the plan: leave it out, or raise fold.until");
}

void note_unread_keys(const JobConfig& c, UnreadNotes& notes) {
  const FoldConfig& fold = c.own.of<FoldConfig>();
  std::set<std::string> unread = all_keys(fold);
  for (const std::string& key : keys_that_are_read(fold)) unread.erase(key);
  notes.add("fold", said_keys(fold), unread, "no stage that is run reads them");
}

std::vector<std::pair<std::string, fs::path>> inputs_of_compression(const JobConfig& c) {
  return {{"fold.plan", c.own.of<FoldConfig>().plan}};
}

/// Its files; of those that lie in a folder of their own, the folder.
void add_outputs_of(const Stage& stage, std::vector<std::string>& names) {
  const fs::path folder = "compress";
  names.push_back((folder / stage.file).string());
  for (const std::string_view beside : stage.beside) {
    const fs::path file = (folder / beside).lexically_normal();
    names.push_back(file.parent_path() == folder ? file.string() : file.parent_path().string() + "/");
  }
}

std::vector<std::string> outputs_of_compression(const JobConfig& c) {
  std::vector<std::string> files = {"recipe.toml", "compress/journal.jsonl"};
  for (const Stage* stage : asked_stages(c.own.of<FoldConfig>())) add_outputs_of(*stage, files);
  return files;
}

}  // namespace

Job compress_job() {
  return {.name = "compress",
          .help = "make a model smaller in depth: remove blocks by trained gates, let others share weights",
          .run = compress,
          .plan = plan_compress,
          .smaller = smaller_compression,
          .reads_data = true,
          .samples = {Split::train},
          .read = [](Recipe& recipe, JobConfig& c) { recipe.read("fold", c.own.of<FoldConfig>()); },
          .check = check_compression,
          .note_unread = note_unread_keys,
          .inputs = inputs_of_compression,
          .outputs = outputs_of_compression,
          .look = look_at_stages};
}

}  // namespace tessera
