// job = "compress": makes a trained model smaller in depth, stage by stage (src/compress/).

#include <algorithm>
#include <limits>

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
#include "compress/calibration.h"
#include "compress/expected_sizes.h"
#include "compress/gate_units.h"
#include "compress/report_points.h"
#include "compress/run_stages.h"
#include "core/error.h"
#include "core/stop.h"
#include "data/data_plan.h"
#include "data/preparation.h"
#include "io/output.h"
#include "kernels/product_rate.h"
#include "model/fold/plan_file.h"
#include "model/fold/plan_shapes.h"
#include "train/reporter.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

const FoldConfig& config_of(const JobInputs& in) { return in.config.own.of<FoldConfig>(); }

/// Those of a row, and where the model's speed is measured, of what that reads.
int64_t positions_of(const JobInputs& in) {
  const int64_t row = in.config.trainer.train.sequence_length;
  return is_asked(config_of(in), "report") ? std::max(row, positions_of_speed()) : row;
}

/// The original: frozen, without the adapter, which is the cure's.
Model::Settings base_settings(const JobInputs& in) {
  Model::Settings settings = model_settings(in, positions_of(in));
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

/// What the cure has of a training, without its record.
CureInputs cure_inputs(const JobInputs& in) {
  return {.trainer = &in.config.trainer,
          .adapter = &in.config.adapter,
          .where_adapter = in.recipe.places("adapter"),
          .where_freeze = in.recipe.where("train", "freeze")};
}

StageSizes sizes_of(const JobInputs& in, Model& model) {
  return {.fold = config_of(in),
          .train = in.config.trainer.train,
          .model = model,
          .ranks = in.world.size(),
          .threads = in.threads,
          .cure = cure_inputs(in)};
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
  require_possible_plan(sizes_of(in, *plan.model), in.recipe.places("fold"));
  for (const Stage* stage : asked_stages(config_of(in))) {
    const StageCost cost = stage->cost(sizes_of(in, *plan.model));
    plan.memory.activations = std::max(plan.memory.activations, cost.bytes);
    plan.memory.results = std::max(plan.memory.results, cost.held);
  }
  plan.memory.data = plan_data(in, true);
  return plan;
}

/// Whether a file of so few bytes is read whole by --check, so that rows are counted and not estimated.
bool is_small(const fs::path& file) {
  std::error_code failure;
  const uintmax_t bytes = fs::file_size(file, failure);
  return !failure && bytes < (uintmax_t{1} << 20);
}

/// Rows of data.train where its file is small.
std::optional<int64_t> counted_rows(const JobInputs& in) {
  if (!is_small(in.config.data.train)) return std::nullopt;
  const Tokenizer tokenizer = Tokenizer::load(in.config.model.tokenizer_folder());
  bool is_whole = false;
  TokenData data = load_sample(data_config(in), tokenizer, Split::train, std::numeric_limits<int64_t>::max(), is_whole);
  if (!is_whole) return std::nullopt;
  const TrainConfig& train = in.config.trainer.train;
  if (objective_of(train.objective).rows == ExampleRows::answers) data = answers_only(std::move(data));
  return PackedDataset(std::move(data), train.sequence_length, static_cast<uint64_t>(train.seed), kNewestRules).rows();
}

/// What --check sees of a journal, what its stages have read of the recipe, and of the files that the recipe names.
/// Base and data are compared by the job.
void compare_with_files(const JobInputs& in, Model& model) {
  const FoldConfig& fold = config_of(in);
  look_at_journal(own_run_path(in) / "compress", fold, keys_of(in));
  if (!fold.plan.empty() && model.knows_base())
    read_fold_plan(fold.plan, FoldBase{.fingerprint = model.base_fingerprint(),
                                       .layers = model.decoder().num_layers(),
                                       .model_type = model.config().family});
  if (const auto rows = counted_rows(in)) require_calibration_rows(*rows, fold, in.recipe.places("fold"));
}

/// What is worth knowing before the job starts, and is no fault.
std::vector<std::string> tell_data(const JobInputs& in) {
  const FoldConfig& fold = config_of(in);
  const DataConfig& data = in.config.data;
  std::vector<std::string> lines;
  if (!data.has_eval() && is_asked(fold, "report"))
    lines.emplace_back(
        "note: there is no held-out data: the report's perplexities will be of the calibration rows, which the plan is "
        "made by; set data.eval or data.eval_fraction");
  if (is_small(data.train)) return lines;
  const int64_t length = in.config.trainer.train.sequence_length,
                rows = plan_data_tokens(data, in.config.model.tokenizer_folder(), Split::train) / length;
  if (rows < fold.calibration_rows)
    lines.push_back(
        fmt::format("note: fold.calibration_rows is {}, and data.train has about {} rows: the job ends where "
                    "it has fewer than that",
                    fold.calibration_rows, rows));
  return lines;
}

/// FLOP a second of products as passes of small models have them, on all ranks.
double rate_of_products(const JobInputs& in) {
  const Compute compute(compute_choice(in), 32 << 20);
  return product_rate(compute, 256, 768, 0.5) * in.world.size();
}

/// A line a stage: what it reads, computes and holds, and how long that takes at the rate of this machine's products.
std::vector<std::string> tell_stages(const JobInputs& in, Model& model) {
  const double rate = rate_of_products(in);
  StageSizes sizes = sizes_of(in, model);
  const DataConfig& data = in.config.data;
  if (data.has_eval() && is_asked(sizes.fold, "report"))
    sizes.eval_tokens = plan_data_tokens(data, in.config.model.tokenizer_folder(), Split::eval);
  std::vector<std::string> lines;
  for (const Stage* stage : asked_stages(sizes.fold)) {
    const StageCost cost = stage->cost(sizes);
    lines.push_back(fmt::format("stage {:<10} {} tokens, {:.3g} GFLOP, about {:.3g} s, {}", stage->name, cost.tokens,
                                cost.flop * 1e-9, cost.flop / rate, megabytes(cost.bytes + cost.held)));
  }
  return lines;
}

/// The model before and after. What keeps a plan from being as it is asked for may be told by shapes that only the real
/// plan has: a note says it.
std::vector<std::string> tell_sizes(const JobInputs& in, Model& model) {
  try {
    return size_lines(sizes_of(in, model), in.recipe.places("fold"));
  } catch (const UserError& error) {
    return {fmt::format("note: sizes are known once the plan is made; of the first blocks: {}", error.what())};
  }
}

/// What --check shows: the plan, the model before and after, and the stages.
JobPlan plan_compress(const JobInputs& in) {
  JobPlan plan = plan_stages(in);
  for (std::string& line : tell_sizes(in, *plan.model)) plan.notes.push_back(std::move(line));
  for (std::string& line : tell_stages(in, *plan.model)) plan.notes.push_back(std::move(line));
  for (std::string& line : tell_data(in)) plan.notes.push_back(std::move(line));
  for (std::string& line : tell_stages_done(own_run_path(in) / "compress", config_of(in)))
    plan.notes.push_back(std::move(line));
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
  CureInputs cure = cure_inputs(in);
  cure.report = &report;
  cure.folder = folder;
  cure.eval = sets.eval ? &*sets.eval : nullptr;
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
                                   .share = in.share,
                                   .eval = sets.eval ? &*sets.eval : nullptr,
                                   .cure = cure});
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

/// The cure is a training by backpropagation, of an adapter that begins anew.
void check_cure(Recipe& recipe, const JobConfig& c) {
  if (!is_asked(c.own.of<FoldConfig>(), "cure")) return;
  const TrainConfig& train = c.trainer.train;
  refuse_two_lengths(recipe, train);
  if (!train.steps)
    recipe.fault("train", train.epochs ? "epochs" : "", "fold: the cure is a training, and train.steps is not given",
                 "give train.steps, for example 250, or set fold.cure = \"none\" to leave the model as it was cut");
  if (train.estimator != "backprop")
    recipe.fault("train", "estimator", fmt::format("fold: the cure cannot be trained by {}", train.estimator),
                 "set train.estimator = \"backprop\"");
  if (!c.adapter.load.empty())
    recipe.fault("adapter", "load", "fold: the cure begins with a new adapter, and adapter.load names another",
                 "leave adapter.load out: an adapter is trained above the cured model by job = \"train\"");
}

/// The stages run to the one that fold.until names, which is to be one of them.
void check_last_stage(Recipe& recipe, const FoldConfig& fold) {
  if (asked_stages(fold).empty())
    return recipe.fault("fold", fold.plan.empty() ? "until" : "plan", "fold: no stage is left to run",
                        "fold.plan takes the place of the stages up to the plan: leave it out, or raise fold.until");
  if (fold.until.empty() || is_asked(fold, fold.until)) return;
  FoldConfig all = fold;
  all.until.clear();
  std::string names;
  for (const Stage* stage : asked_stages(all))
    names += fmt::format("{}{}", names.empty() ? "" : ", ", std::string(stage->name));
  recipe.fault("fold", "until", fmt::format("fold.until is \"{}\", and this recipe has no such stage", fold.until),
               "its stages are " + names);
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
  check_cure(recipe, c);
  check_path(recipe, fold.plan, "fold", "plan");
  check_path(recipe, fold.reuse, "fold", "reuse");
  check_last_stage(recipe, fold);
}

/// Of every section that a stage may read: what none of those reads that are run.
void note_unread_keys(const JobConfig& c, UnreadNotes& notes) {
  const FoldConfig& fold = c.own.of<FoldConfig>();
  const auto note = [&](const std::string& section, const auto& config) {
    std::set<std::string> unread = all_keys(config);
    for (const std::string& key : keys_that_are_read(fold, section)) unread.erase(key);
    notes.add(section, said_keys(config), unread, "no stage that is run asks for that");
  };
  note("fold", fold);
  if (fold.selector != "gates" || fold.remove == 0 || !fold.plan.empty())
    notes.add("fold", said_keys(fold), {"gates"}, "no gates are trained, and whole blocks are removed");
  if (!is_asked(fold, "cure")) {  // it is a training, which reads all of these
    note("train", c.trainer.train);
    note("optimizer", c.trainer.optimizer);
    note("adapter", c.adapter);
    return;
  }
  if (fold.cure == "full")
    notes.add("adapter", said_keys(c.adapter), all_keys(c.adapter), "fold.cure is \"full\", which trains no adapter");
  if (fold.cure == "adapter")
    notes.add("train", said_keys(c.trainer.train), {"freeze"},
              "fold.cure is \"adapter\", and freezes all that is shared");
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
  const FoldConfig& fold = c.own.of<FoldConfig>();
  std::vector<std::string> files = {"recipe.toml", "compress/", "compress/journal.jsonl"};
  if (is_asked(fold, "share")) files.emplace_back("sharing/");
  if (is_asked(fold, "cure")) files.insert(files.end(), {"compress/checkpoints/", "metrics.jsonl"});
  for (const Stage* stage : asked_stages(fold)) add_outputs_of(*stage, files);
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
          .samples = {Split::train, Split::eval},
          .read =
              [](Recipe& recipe, JobConfig& c) {
                const std::string line = read_fold(recipe, c.own.of<FoldConfig>());
                if (c.job == "compress" && !line.empty()) c.notes.push_back(line);
              },
          .check = check_compression,
          .note_unread = note_unread_keys,
          .inputs = inputs_of_compression,
          .outputs = outputs_of_compression,
          .compare = compare_with_files};
}

}  // namespace tessera
