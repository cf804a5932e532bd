// job = "train": the main job, from a recipe to a trained, saved adapter or model.

#include <array>
#include <set>

#include "cli/workspace.h"
#include "io/files.h"
#include "kernels/table.h"
#include "model/adapter_io.h"
#include "model/export.h"
#include "train/report_html.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// Keys that may change between a run and its continuation.
bool may_differ(const std::string& key) {
  const std::string section = key.substr(0, key.find('.'));
  static const std::set<std::string> keys = {"data.cache",        "spsa.logs",   "spsa.compact", "spsa.perturb",
                                             "spsa.side_by_side", "spsa.shared", "spsa.machine", "spsa.machines"};
  return section == "run" || section == "checkpoint" || section == "log" || section == "evaluate" ||
         section == "replay" || keys.count(key) > 0;
}

/// @throws UserError listing every key whose value is not the checkpoint's, or telling that the training data changed
void require_same_run(const Recipe& recipe, const PackedDataset& data, const CheckpointMeta& saved,
                      const fs::path& file) {
  std::string differences;
  const std::map<std::string, std::string> before(saved.recipe.begin(), saved.recipe.end());
  for (const auto& [key, value] : recipe.flat()) {
    const auto found = before.find(key);
    const std::string old = found == before.end() ? "" : found->second;
    if (may_differ(key) || old == value) continue;
    differences +=
        fmt::format("{} was {}, now {}\n", key, old.empty() ? "not set" : old, value.empty() ? "not set" : value);
  }
  if (!differences.empty())
    throw UserError(
        file.string(), "this run cannot go on with another recipe",
        differences + (file.filename() == "run.json"
                           ? "undo the change, start anew with run.resume=never or another run.dir, or go on from a "
                             "round of it in a branch: job=replay replay.branch=FOLDER"
                           : "undo the change, or start anew with run.resume=never or another run.dir"));
  if (saved.data_hash != data.hash())
    throw UserError(
        file.string(), "this run cannot go on with other training data",
        "data.train has other contents now: undo the change, or start anew with run.resume=never or another run.dir");
}

void require_same_base(const std::string& base, const CheckpointMeta& saved, const fs::path& file) {
  if (saved.base_fingerprint != base)
    throw UserError(
        file.string(), "this run cannot go on with another base model",
        fmt::format(
            "model.path has another config.json or other weights now, or they are shared in another way (it was {}, now "
            "{}): put them back, or start anew with run.resume=never or another run.dir",
            saved.base_fingerprint.empty() ? "of its own" : saved.base_fingerprint,
            base.empty() ? "of its own" : base));
}

/// Rank 0's text on every rank.
std::string broadcast_text(Communicator& world, const std::string& chosen) {
  std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(chosen.data()),
                               reinterpret_cast<const std::byte*>(chosen.data()) + chosen.size());
  world.broadcast(bytes, 0);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

/// Rank 0's choice of where to start, told to all: a checkpoint file or nothing.
fs::path choose_start(const JobInputs& in, const RunFolder* folder, std::vector<std::string>& notices) {
  std::string chosen;
  if (folder) {
    const std::string& resume = in.config.run.resume;
    if (resume == "auto") {
      if (const auto newest = newest_checkpoint(*folder / "checkpoints", notices)) chosen = newest->string();
    } else if (resume != "never") {
      chosen = resume;
    }
  }
  return broadcast_text(in.world, chosen);
}

void say_plan(Reporter& report, const JobInputs& in, Model& model, const MemoryPlan& memory, const Datasets& sets,
              int64_t steps) {
  const JobConfig& config = in.config;
  report.say(fmt::format("{}: {} layers of width {}, {} parameters; trained: {} ({})",
                         in.config.model.path.filename().string(), model.config().num_hidden_layers,
                         model.config().hidden_size, dense_parameters(model), model.pool().trainable_count(),
                         config.adapter.method != "none"   ? config.adapter.method
                         : config.sharing.method != "none" ? config.sharing.method
                                                           : "all"));
  for (const std::string& note : model.notes()) report.say(note);
  report.say(fmt::format("data: {} rows of {} tokens, {:.1f} % filled; {} steps of {} rows on {} ranks x {} threads",
                         sets.train->rows(), sets.train->sequence_length(), 100 * sets.train->fill(), steps,
                         in.config.trainer.train.batch, in.world.size(), in.threads));
  report.say(fmt::format(
      "memory a rank: weights and gradients {}, optimizer {}, activations {}, assembled {}; mapped once a machine: {}",
      megabytes(memory.weights_and_gradients), megabytes(memory.optimizer), megabytes(memory.activations),
      megabytes(memory.assembled), megabytes(memory.mapped)));
  if (in.config.trainer.train.estimator == "spsa")
    report.say(fmt::format("sent by a machine in a round: {}; no gradients, no saved activations",
                           megabytes(wire_bytes_per_step(in, model))));
  else
    report.say(fmt::format("all-reduced a step: {}", megabytes(wire_bytes_per_step(in, model))));
  if (const std::string notice = length_notice(in, model); !notice.empty()) report.say(notice);
}

/// Parameters of a plain LoRA of the rank that the adapter's layers work with.
int64_t lora_parameters(const AdapterWeights& adapter) {
  int64_t count = 0;
  for (const auto& delta : adapter.by_weight)
    if (delta) count += delta->a->shape().count() + delta->bt->shape().count();
  return count;
}

/// What changed, for the reader: loss and accuracy before and after, and what it cost.
void say_outcome(Reporter& report, Model& model, const TrainOutcome& outcome, Objective objective) {
  const LossSums &first = outcome.meta.first_eval, &last = outcome.meta.last_eval;
  if (last.completions > 0)
    report.say(fmt::format("held-out completions right: {:.1f} % before, {:.1f} % after", 100 * first.exact_match(),
                           100 * last.exact_match()));
  if (last.choices > 0)
    report.say(fmt::format("held-out choices right: {:.1f} % before, {:.1f} % after", 100 * first.accuracy(),
                           100 * last.accuracy()));
  if (last.scored > 0)
    report.say(fmt::format("held-out loss: {:.4f} before, {:.4f} after", first.mean_loss(objective),
                           last.mean_loss(objective)));
  if (last.scored > 0 && last.mean_loss(objective) > 1.02 * first.mean_loss(objective))
    report.say("warning: the held-out loss rose: lower optimizer.lr (a round with fewer votes bears less)");
  if (!model.bound_adapter()) return;
  const int64_t trained = model.pool().trainable_count(), base = dense_parameters(model);
  const int64_t lora = lora_parameters(model.bound_adapter()->weights());
  const auto percent = [&](int64_t whole) { return 100.0 * static_cast<double>(trained) / static_cast<double>(whole); };
  report.say(fmt::format("trained {} parameters: {:.1f} % of a LoRA of the same rank ({}), {:.2f} % of the model ({})",
                         trained, percent(lora), lora, percent(base), base));
}

Json done_line(const TrainOutcome& outcome, Model& model, Objective objective) {
  Json line = Json::object()
                  .set("event", "done")
                  .set("step", outcome.meta.step)
                  .set("loss", outcome.meta.last_loss)
                  .set("tokens", outcome.meta.tokens)
                  .set("seconds", outcome.meta.seconds)
                  .set("trained_parameters", model.pool().trainable_count());
  const auto add = [&](const std::string& suffix, const LossSums& sums) {
    if (sums.scored == 0) return;
    line.set("eval_loss" + suffix, sums.mean_loss(objective))
        .set("eval_token_accuracy" + suffix, sums.token_accuracy());
    if (sums.completions > 0) line.set("eval_exact_match" + suffix, sums.exact_match());
    if (sums.choices > 0) line.set("eval_accuracy" + suffix, sums.accuracy());
  };
  add("_before", outcome.meta.first_eval);
  add("", outcome.meta.last_eval);
  return line;
}

/// A process beside others of one run keeps its things in a folder of its own.
fs::path own_run_folder(const JobInputs& in) {
  const SpsaConfig& spsa = in.config.trainer.spsa;
  const fs::path folder = run_folder_path(in);
  if (in.config.trainer.train.estimator != "spsa" || spsa.transport != "file" || spsa.machine == 0) return folder;
  create_folder(folder);
  return folder / fmt::format("machine-{:05}", spsa.machine);
}

/// What run.json says of the run whose log is in the folder; nothing without a log.
std::optional<CheckpointMeta> meta_of_log(const fs::path& run_path) {
  const fs::path file = run_path / "run.json";
  if (!fs::exists(run_path / "log" / "header.json") || !fs::exists(file)) return std::nullopt;
  CheckpointMeta saved;
  with_place(file.string(), [&] {
    const Json json = Json::parse(read_text_file(file), file.string());
    for (const auto& [key, value] : json.at("recipe").members()) saved.recipe.emplace_back(key, value.as_string());
    saved.data_hash = json.at("data_hash").as_string();
    saved.base_fingerprint = json.at("base").as_string();
  });
  return saved;
}

/// The recipe and data that the log's rounds were made with: kept beside the log, compared when the run goes on.
void require_same_spsa_run(const JobInputs& in, const PackedDataset& data, const std::string& base,
                           const fs::path& run_path) {
  const fs::path file = run_path / "run.json";
  if (const auto saved = meta_of_log(run_path)) {
    require_same_run(in.recipe, data, *saved, file);
    require_same_base(base, *saved, file);
  }
}

/// A log that is begun, or that a branch brought along, is this recipe's from now on.
void keep_spsa_run(const JobInputs& in, const PackedDataset& data, const std::string& base, const fs::path& run_path,
                   const std::string& header) {
  const fs::path file = run_path / "run.json", there = run_path / "log" / "header.json";
  const bool has_log = fs::exists(there);
  if (has_log && (fs::exists(file) || read_text_file(there) != header)) return;  // another header is refused later on
  Json recipe = Json::object();
  for (const auto& [key, value] : in.recipe.flat()) recipe.set(key, value);
  write_text_file(file,
                  Json::object().set("base", base).set("data_hash", data.hash()).set("recipe", recipe).dump(1) + "\n");
}

/// The run's header, the same on every rank, and what probes with.
std::unique_ptr<SpsaInputs> spsa_inputs(const JobInputs& in, Model& model, const PackedDataset& data,
                                        const std::string& base, const fs::path& run_path, const Context& ctx) {
  const SpsaConfig& config = in.config.trainer.spsa;
  const bool file = config.transport == "file";
  auto spsa = std::make_unique<SpsaInputs>();
  std::string text;
  if (in.world.rank() == 0) {
    require_same_spsa_run(in, data, base, run_path);
    const int machines = file ? static_cast<int>(config.machines) : in.world.size();
    text = make_header(config, in.config.trainer.train, in.config.trainer.optimizer, model, base, machines,
                       run_path / "log", ctx)
               .text();
    keep_spsa_run(in, data, base, run_path, text);
  }
  spsa->header = RunHeader::parse(broadcast_text(in.world, text), "the run's header");
  spsa->shared = config.shared.empty() ? run_folder_path(in) / "engine" : config.shared;
  spsa->prober = make_prober(config, model);
  return spsa;
}

/// Whether the folder's run is finished: rank 0's word. It prints the last line again.
bool already_done(const JobInputs& in, const RunFolder* folder) {
  std::array<double, 1> done{0};
  if (folder && in.config.run.resume == "auto")
    if (const auto line = MetricsFile(*folder / "metrics.jsonl").done()) {
      std::puts(line->dump().c_str());
      done[0] = 1;
    }
  in.world.all_reduce_max(std::span<double>(done));
  return done[0] > 0;
}

}  // namespace

int train_job(const JobInputs& in) {
  if (in.config.trainer.train.estimator == "spsa" && in.config.trainer.spsa.transport == "file" && in.world.size() > 1)
    throw UserError(in.recipe.where("spsa", "transport"),
                    fmt::format("spsa.transport = \"file\" under {} ranks of one job", in.world.size()),
                    "start the processes one by one without a launcher, or leave spsa.transport out");
  std::unique_ptr<RunFolder> folder;
  if (in.world.rank() == 0) folder = std::make_unique<RunFolder>(own_run_folder(in), in.config.run.resume);
  const fs::path run_path = broadcast_text(in.world, folder ? folder->path().string() : "");
  Model model(
      model_settings(in, in.config.trainer.train.sequence_length));  // first: its faults show before data is prepared
  if (folder && writes_model(in, model)) refuse_own_folder(*folder / "model", in.config.model.path);
  Datasets sets = load_datasets(in, true);
  require_known_tokens(in, model, sets);
  const fs::path start = choose_start(in, folder.get(), sets.notices);
  if (!start.empty()) require_same_run(in.recipe, *sets.train, read_checkpoint_meta(start), start);
  if (folder)
    if (const auto saved = meta_of_log(run_path))
      require_same_run(in.recipe, *sets.train, *saved, run_path / "run.json");
  if (already_done(in, folder.get())) return kDone;

  Reporter report(folder.get(),
                  in.world.rank() == 0 ? progress_kind(in.config.trainer.log, in.quiet, in.launched) : Progress::none);
  for (const std::string& notice : sets.notices) report.say(notice);
  start_from_saved_adapter(in.config, model);
  const MemoryPlan memory = plan_memory(in, model);
  require_agreement(in, model, sets);
  const std::string base = folder ? model.start_fingerprint() : "";
  if (folder && !start.empty()) require_same_base(base, read_checkpoint_meta(start), start);
  Arena arena(memory.activations);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, in.config.run.backend),
                    .scratch = arena,
                    .threads = in.threads};

  if (folder)
    write_text_file(*folder / "recipe.toml", "# trainer " TESSERA_VERSION "\n" + in.recipe.resolved("run.dir"));
  say_plan(report, in, model, memory, sets, total_steps(in.config.trainer, *sets.train, in.world.size()));

  std::unique_ptr<SpsaInputs> spsa;
  if (in.config.trainer.train.estimator == "spsa") spsa = spsa_inputs(in, model, *sets.train, base, run_path, ctx);
  const TrainOutcome outcome = run_training({.config = in.config.trainer,
                                             .model = model,
                                             .data = *sets.train,
                                             .eval = sets.eval ? &*sets.eval : nullptr,
                                             .world = in.world,
                                             .ctx = ctx,
                                             .report = report,
                                             .folder = folder.get(),
                                             .recipe = in.recipe.flat(),
                                             .base_fingerprint = base,
                                             .resume_from = start,
                                             .stop_requested = stop_requested,
                                             .run_path = run_path,
                                             .spsa = spsa.get()});
  if (outcome.stopped) {
    if (folder) write_report(folder->path());
    report.say(fmt::format("stopped after step {}; the same command goes on", outcome.meta.step));
    return kStopped;
  }
  if (folder) {
    export_results(in, ctx, model, folder->path(), [&](const std::string& line) { report.say(line); });
    const Objective objective = objective_of(in.config.trainer.train.objective);
    say_outcome(report, model, outcome, objective);
    report.metric(done_line(outcome, model, objective));
    write_report(folder->path());
    report.say(fmt::format("report: {}", (*folder / "report.html").string()));
  }
  return kDone;
}

}  // namespace tessera
