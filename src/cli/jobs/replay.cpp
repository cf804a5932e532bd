// job = "replay": the weights of a shared-seed run at any round, from the base model and the log of bytes alone.

#include <chrono>

#include "cli/inputs.h"
#include "cli/model_settings.h"
#include "cli/notices.h"
#include "cli/plan.h"
#include "cli/recipe_rules.h"
#include "cli/results.h"
#include "cli/run_path.h"
#include "cli/spsa_run.h"
#include "cli/trained_weights.h"
#include "core/error.h"
#include "io/files.h"
#include "io/json_file.h"
#include "io/output.h"
#include "model/config_fingerprint.h"
#include "model/export.h"
#include "train/spsa/branch.h"
#include "train/spsa/rounds.h"
#include "train/spsa/run_header.h"
#include "train/spsa/spsa_estimator.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// [replay]: rebuilding a shared-seed run from base and log (job = "replay").
struct ReplayConfig {
  std::filesystem::path log, branch;
  std::optional<int64_t> round;
  bool from_base = true;

  void visit(Fields& v) {
    v("log", log, path_as_typed(),
      "folder of a run or of its log; empty: run.dir is the run, and the results go beside it, into <run.dir>-replay",
      OnResume::free);
    v("round", round, in_range(0, 4294967295.0), "rounds to apply; default: all that the log holds", OnResume::free);
    v("from_base", from_base, anything(),
      "true: from the base model and the log alone, every digest compared; false: from the newest snapshot beside the log",
      OnResume::free);
    v("branch", branch, path_as_typed(),
      "a new run's folder: the log up to the round, cut off under a name of its own, for a training to go on from; "
      "nothing is exported then",
      OnResume::free);
  }
};

const ReplayConfig& config_of(const JobInputs& in) { return in.config.own.of<ReplayConfig>(); }

/// The run that is read: replay.log, or else run.dir. @throws UserError when there is no log
RunPlaces replayed_run(const JobInputs& in) {
  return find_log(config_of(in).log.empty() ? run_folder_path(in) : config_of(in).log);
}

/// Where the results go: a folder of the replay's own.
fs::path results_folder(const JobInputs& in, const RunPlaces& source) {
  const bool is_named = !config_of(in).log.empty() && !in.config.run.dir.empty();
  fs::path folder = run_folder_path(in);
  if (!is_named) folder = (folder / "").parent_path().string() + "-replay";
  if (fs::exists(folder) && (fs::equivalent(folder, source.run) || fs::equivalent(folder, source.log)))
    throw UserError(in.recipe.where("run", "dir"), "run.dir is the run that is replayed",
                    "name another folder: the run's own results stay as they are");
  for (const char* left : {"recipe.toml", "metrics.jsonl", "checkpoints", "log"})
    if (fs::exists(folder / left))
      throw UserError(
          in.recipe.where("run", "dir"),
          fmt::format("\"{}\" holds a run of its own ({}), and a replay would write over its results", folder.string(),
                      left),
          fmt::format("name the run with replay.log={} and another folder with run.dir", source.run.string()));
  return folder;
}

/// Its records up to the last; of a log that is damaged in its middle up to the damage, when the round that is asked
/// for lies before that. @throws UserError otherwise
StepLog open_log(const JobInputs& in, const RunPlaces& source) {
  StepLog log = StepLog::open(source.log, {.access = StepLog::Access::read, .up_to_damage = true});
  const auto& damage = log.damage();
  const uint32_t held = rounds_in(log);
  if (damage && config_of(in).round.value_or(int64_t{held} + 1) > held)
    throw UserError(
        damage->where(), damage->message(),
        fmt::format("{}\nthe {} rounds before are whole: replay.round={} and less are rebuilt, or branched off",
                    damage->hint(), held, held));
  return log;
}

/// What there is to tell of a log that was opened.
std::vector<std::string> notices_of(const StepLog& log) {
  std::vector<std::string> notices = log.notices();
  if (const auto& damage = log.damage())
    notices.push_back(
        fmt::format("note: the log is read up to its damage: {}: {}", damage->where(), damage->message()));
  return notices;
}

constexpr const char* kReplayed = "replay.json";

/// That results in the folder are replaced which are of another round, or of nobody knows which; mostly empty.
std::string replaced_notice(const fs::path& folder, const std::string& run, uint32_t round) {
  const auto holds = [&](const char* name) { return fs::exists(folder / name); };
  if (!holds("adapter") && !holds("sharing") && !holds("model") && !holds("peft")) return "";
  std::string what = "results that do not say of which round they are";
  try {
    const Json kept = read_configuration(folder / kReplayed);
    const int64_t before = kept.at("round").as_integer();
    const bool is_same_run = kept.at("run").as_string() == run;
    if (is_same_run && before == round) return "";
    what = fmt::format("the weights of round {}{}", before, is_same_run ? "" : " of another run");
  } catch (const UserError&) {  // none, or a damaged one: both are written anew
  }
  return fmt::format("note: \"{}\" holds {}: those of round {} take their place", folder.string(), what, round);
}

uint32_t wanted_round(const JobInputs& in, const StepLog& log) {
  const uint32_t held = rounds_in(log);
  const int64_t wanted = config_of(in).round.value_or(held);
  if (wanted > held)
    throw UserError(in.recipe.where("replay", "round"),
                    fmt::format("the log holds {} rounds, round {} is asked for", held, wanted),
                    "name a round that the log holds, or leave replay.round out for the last");
  return static_cast<uint32_t>(wanted);
}

/// The first key of two descriptions that differs, in words.
std::string difference_of(const std::string& there, const std::string& here) {
  const Json was = Json::parse(there, "the log's header"), now = Json::parse(here, "the recipe's");
  const auto text = [](const Json* value) { return value ? value->dump() : std::string("not set"); };
  for (const auto& [key, value] : was.members())
    if (text(now.find(key)) != text(was.find(key)))
      return fmt::format("{} was {}, the recipe's is {}", key, value.dump(), text(now.find(key)));
  for (const auto& [key, value] : now.members())
    if (!was.find(key)) return fmt::format("{} was not set, the recipe's is {}", key, value.dump());
  return "the order of its keys";
}

void require_same_selection(const std::string& there, Model& model, const std::string& where) {
  const std::string here = selection_of(model);
  if (here == there) return;
  const char* section = model.adapter() ? "adapter" : "sharing";
  throw UserError(where, fmt::format("the log belongs to another {}: {}", section, difference_of(there, here)),
                  fmt::format("set [{}] as the run had it", section));
}

/// What is trained, and where each number of it lies; no value is looked at.
void require_same_layout(const RunHeader& header, Model& model, const std::string& where) {
  // Of a pool, the description tells more than the one tensor that it is.
  if (model.is_shared() && !model.adapter() && header.selection.rfind('{', 0) == 0)
    require_same_selection(header.selection, model, where);
  require_same_manifest(header, model.pool().trainable(), where);
  require_same_selection(header.selection, model, where);
}

/// The header is the authority: the recipe's model must be the one that the run started with.
/// @throws UserError naming the first thing that differs
void require_same_start(const RunHeader& header, Model& model, const std::string& where, const Context& ctx) {
  const FlatParams& params = model.pool().trainable();
  require_same_layout(header, model, where);
  if (const std::string mine = model.start_fingerprint(); mine != header.base)
    throw UserError(where, "the log belongs to another base model",
                    fmt::format("its frozen weights have the hash {}, those of model.path \"{}\" {}", header.base,
                                model.options().path.string(), mine));
  if (const std::string mine = values_digest(ctx, params, params.values).text(); mine != header.start)
    throw UserError(where, "the log begins with other values of the trained tensors than the recipe draws or loads",
                    fmt::format("their digest was {}, here it is {}: set train.seed, sharing.load, adapter.load and "
                                "model.path as the run had them",
                                header.start, mine));
}

/// A log's header knows the weights; run.json beside it, if it is there, also the numbers of config.json.
void require_same_config(const RunPlaces& source, const Model& model) {
  const auto saved = meta_of_log(source.run);
  if (!saved || saved->config_fingerprint.empty() || saved->config_fingerprint == config_fingerprint(model.config()))
    return;
  throw UserError((source.run / "run.json").string(), "the log belongs to another base model",
                  "config.json of model.path has other numbers now: put back what the run had");
}

/// Whose weights are in a folder of results: replay.json, beside them once all are written.
struct Replayed {
  std::string run;
  uint32_t round;
  std::string digest;
  std::string text() const {
    return Json::object().set("run", run).set("round", int64_t{round}).set("digest", digest).dump(1) + "\n";
  }
};

/// @return what the weights were rounded to in the folder, when they were
std::optional<DType> export_into(const JobInputs& in, const Context& ctx, Model& model, const fs::path& target,
                                 const Replayed& replayed) {
  refuse_own_folder(target / "model", in.config.model.path);
  const RunFolder folder(target, "auto", teller(in));
  tell(in, folder.notice());
  model.assemble(ctx);
  fs::remove(folder / kReplayed);
  std::optional<DType> rounded_to;
  for (const Written& result : export_results(in, ctx, model, folder.path(), {})) {
    if (!result.rounded_to || rounded_to) continue;
    tell(in, rounded_notice(result, ", and the digest is of what they were before"));
    rounded_to = result.rounded_to;
  }
  write_text_file(folder / kReplayed, replayed.text());
  return rounded_to;
}

/// What --check sees: the log, the round, where results go, and that the recipe's model is the run's. Values of weights
/// are not compared.
void look_at_replay(const JobInputs& in, Model* laid_out) {
  const RunPlaces source = replayed_run(in);
  const StepLog log = open_log(in, source);
  const std::string where = (source.log / "header.json").string();
  const RunHeader header = RunHeader::parse(log.header(), where);
  wanted_round(in, log);
  if (config_of(in).branch.empty())
    refuse_overwritten_inputs(in, results_folder(in, source));
  else
    require_free_for_branch(config_of(in).branch, log);
  require_same_layout(header, *laid_out, where);
  require_same_config(source, *laid_out);
}

/// Of the replica that replays the run: its log's header has the say on the optimizer and the directions.
int64_t plan_replica(const JobInputs& in, int64_t count) {
  OptimizerConfig optimizer = in.config.trainer.optimizer;
  SpsaConfig spsa = spsa_config(in.config.trainer);
  std::filesystem::path file;
  try {
    file = replayed_run(in).log / "header.json";
  } catch (const UserError&) {
    return replica_state_bytes(spsa, optimizer, count);  // a note says that there is no log yet
  }
  const RunHeader header = RunHeader::parse(read_text_file(file), file.string());
  optimizer.name = header.optimizer;
  optimizer.momentum = header.momentum;
  spsa.directions = header.family == Family::pool ? "pool" : "independent";
  spsa.pool_size = header.lanes;
  return replica_state_bytes(spsa, optimizer, count);
}

JobPlan plan_replay(const JobInputs& in) {
  JobPlan plan = plan_of_model(model_settings(in, kExportPositions));
  plan.memory.activations = kExportScratch;
  plan.memory.optimizer = plan_replica(in, plan.model->pool().trainable().values.shape.count());
  plan.memory.results = config_of(in).branch.empty() ? plan_results(in, *plan.model) : 0;
  plan.one_rank = true;
  return plan;
}

int replay_log(const JobInputs& in) {
  if (in.world.rank() != 0) return kDone;
  const ReplayConfig& config = config_of(in);
  const RunPlaces source = replayed_run(in);
  const fs::path target = config.branch.empty() ? results_folder(in, source) : config.branch;
  const auto start = Clock::now();
  const StepLog log = open_log(in, source);
  const auto opened = Clock::now();
  for (const std::string& notice : notices_of(log)) tell(in, notice);
  const std::string where = (source.log / "header.json").string();
  const RunHeader header = RunHeader::parse(log.header(), where);
  const uint32_t round = wanted_round(in, log);
  if (!config.branch.empty())
    require_free_for_branch(config.branch, log);
  else
    refuse_overwritten_inputs(in, target);
  const std::string run = sha256_hex(log.header());
  if (config.branch.empty()) tell(in, replaced_notice(target, run, round));

  const MemoryPlan memory = require_memory(in, plan_replay(in));
  Model::Settings settings = model_settings(in, kExportPositions);
  settings.sharing.rules = header.rules;
  Model model(settings);
  start_from_saved_adapter(in.config, model);
  const Compute compute(compute_choice(in), memory.activations);
  const Context& ctx = compute;
  require_same_start(header, model, where, ctx);
  require_same_config(source, model);
  Replica replica(header, model.pool().trainable());
  const auto begin = Clock::now();
  const ReplayCount count =
      replay(ctx, replica, log, config.from_base ? fs::path() : source.run / "checkpoints", round);
  const double seconds = std::chrono::duration<double>(Clock::now() - begin + (opened - start)).count();
  std::optional<DType> rounded_to;
  const std::string digest = replica.digest(ctx).text();
  if (config.branch.empty())
    rounded_to = export_into(in, ctx, model, target, {.run = run, .round = round, .digest = digest});
  else
    write_branch(ctx, target, log, source.run, replica);
  Json line = Json::object()
                  .set("log", source.log.string())
                  .set("run", run)
                  .set("round", int64_t{round})
                  .set("rounds", count.rounds)
                  .set("votes", count.votes)
                  .set("digests_verified", count.digests + count.snapshots)
                  .set("digest", digest)
                  .set("seconds", seconds)
                  .set("rounds_per_second", static_cast<double>(count.rounds) / seconds)
                  .set(config.branch.empty() ? "results" : "branch", target.string());
  if (rounded_to) line.set("rounded_to", std::string(name_of(*rounded_to)));
  print_out("{}\n", line.dump());
  return kDone;
}

}  // namespace

Job replay_job() {
  return {
      .name = "replay",
      .help = "rebuild the weights of an SPSA run at any round from the base model and its log, or branch off there",
      .run = replay_log,
      .plan = plan_replay,
      .smaller = smaller_writing,
      .moves_values = true,
      .results = JobResults::all,
      .kept = "the log is as it was",
      .read = [](Recipe& recipe, JobConfig& c) { recipe.read("replay", c.own.of<ReplayConfig>()); },
      .check = [](Recipe& recipe,
                  const JobConfig& c) { check_path(recipe, c.own.of<ReplayConfig>().log, "replay", "log"); },
      .look = look_at_replay};
}

}  // namespace tessera
