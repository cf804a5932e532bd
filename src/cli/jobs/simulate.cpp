// job = "simulate": a run of many loose nodes in one process, by simulated time.

#include <algorithm>
#include <chrono>
#include <cmath>

#include "cli/datasets.h"
#include "cli/inputs.h"
#include "cli/model_settings.h"
#include "cli/notices.h"
#include "cli/plan.h"
#include "cli/recipe_rules.h"
#include "cli/run_path.h"
#include "cli/trained_weights.h"
#include "comm/data_groups.h"
#include "core/error.h"
#include "io/files.h"
#include "io/output.h"
#include "train/estimator.h"
#include "train/run_folder.h"
#include "train/spsa/simulate/quadratic.h"
#include "train/spsa/simulate/simulation.h"
#include "train/spsa/spsa_estimator.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kReport = "simulate.json";

const SimulateConfig& config_of(const JobConfig& config) { return config.own.of<SimulateConfig>(); }

bool uses_model(const JobConfig& config) { return config_of(config).nodes.value_or(1) <= kMostWithModel; }

/// Whatever engine the recipe names, nodes are as at a server, and those that may pack do.
SpsaConfig loose_config(const JobConfig& config) {
  SpsaConfig spsa = spsa_config(config.trainer);
  spsa.transport = "nats";
  spsa.loose.packs = "auto";
  return spsa;
}

constexpr const char* kWritten[] = {"log", "checkpoints", "nodes", "node.json", "nodes.json"};

/// A simulation in the folder is begun anew; a run is not touched, nor anything that a simulation would remove.
void require_free_folder(const fs::path& folder) {
  if (fs::exists(folder / kReport)) return;
  const auto refuse = [&](const char* left) {
    if (fs::exists(folder / left))
      throw UserError((folder / left).string(), "this folder holds something that is no simulation",
                      "name another folder with run.dir");
  };
  std::ranges::for_each(kWritten, refuse);
  for (const char* left : {"metrics.jsonl", "recipe.toml", "adapter", "sharing", "model", "replay.json"}) refuse(left);
}

void clear(const RunFolder& folder) {
  write_text_file(folder / kReport, Json::object().set("finished", false).dump(1) + "\n");
  for (const char* left : kWritten) fs::remove_all(folder / left);
}

/// What the nodes train, and how they see its loss.
struct Subject {
  std::optional<Datasets> sets;
  std::optional<Model> model;
  std::optional<ParameterPool> quadratic;
  std::unique_ptr<Prober> prober;
  RunHeader header;
  std::unique_ptr<SimLosses> losses;
  FlatParams& params() { return model ? model->pool().trainable() : quadratic->trainable(); }
};

/// @param train  with the simulation's rounds
void set_up_model(const JobInputs& in, const SpsaConfig& spsa, const TrainConfig& train, const Context& ctx,
                  Subject& subject) {
  Model& model = *subject.model;
  start_from_saved_adapter(in.config, model);
  subject.header =
      make_header(spsa, train, in.config.trainer.optimizer, model, model.start_fingerprint(), 1, kNewestRules, {}, ctx);
  subject.prober = make_prober(spsa, model);
  subject.losses = make_model_losses({.ctx = ctx,
                                      .data = *subject.sets->train,
                                      .train = train,
                                      .spsa = spsa,
                                      .header = subject.header,
                                      .prober = *subject.prober},
                                     model);
}

void set_up_quadratic(const JobInputs& in, const SpsaConfig& spsa, const TrainConfig& train, const Context& ctx,
                      Subject& subject) {
  subject.quadratic.emplace();
  reserve_quadratic(*subject.quadratic);
  subject.quadratic->allocate(static_cast<uint64_t>(train.seed), ParameterPool::Gradients::no);
  subject.header = make_header(spsa, train, in.config.trainer.optimizer,
                               HeaderSubject{.params = subject.quadratic->trainable(), .base = "", .selection = "all"},
                               1, kNewestRules, {}, ctx);
  subject.losses = make_quadratic_losses(subject.header, static_cast<uint64_t>(config_of(in.config).seed));
}

/// Values of its own to begin with, since the model's are written over by each that looks.
SimReport run_simulation(const JobInputs& in, const SpsaConfig& spsa, Subject& subject, const Context& ctx,
                         const fs::path& folder) {
  const OwnWeights start(subject.params());
  return simulate({.ctx = ctx,
                   .config = config_of(in.config),
                   .spsa = spsa,
                   .header = subject.header,
                   .start = start.params,
                   .losses = *subject.losses,
                   .folder = folder},
                  teller(in));
}

void print_report(const SimReport& report, bool is_of_model, double wall_seconds, const fs::path& folder) {
  const Json json = report.json();
  const auto number = [&](const char* key) { return json.at(key).as_number(); };
  print_out("{} nodes, {} rounds in {:.1f} simulated seconds: {:.3f} rounds/s; {:.1f} s of this machine\n",
            report.nodes, report.rounds, report.simulated_seconds, number("rounds_per_second"), wall_seconds);
  print_out("bytes a vote     {:.2f} up, {:.2f} down a node; at the server {} up, {} down\n",
            json.at("bytes_up").at("node_and_vote").as_number(), json.at("bytes_down").at("node_and_vote").as_number(),
            megabytes(report.bytes_up), megabytes(report.bytes_down));
  print_out("nodes            {} left, {} were killed, {} came in their places\n", report.leaves, report.kills,
            report.joins);
  if (report.caught_up > 0)
    print_out("catching up      {:.2f} s in the middle, {:.2f} s at most, of {} newcomers\n", report.catch_up_median,
              report.catch_up_largest, report.caught_up);
  print_out("log              {} votes, {} late groups, {} lanes given anew, {} conflicts, {} reseeds\n", report.votes,
            report.stale_groups, report.lanes_given_anew, report.conflicts, report.reseeds);
  if (std::isfinite(report.loss_first))
    print_out("loss             {:.4f} first, {:.4f} last; {}\n", report.loss_first, report.loss_last,
              is_of_model ? "of the model"
                          : fmt::format("of a quadratic: with more than {} nodes no model is read", kMostWithModel));
  print_out("digests          {} compared, {} differ; {}\n", report.compared, report.divergence, report.digest);
  print_out("report           {}\n", (folder / kReport).string());
}

JobPlan plan_simulation(const JobInputs& in) {
  JobPlan plan;
  plan.one_rank = true;
  const int64_t copies =
      std::min(config_of(in.config).nodes.value_or(1), kWholeNodes) + 2 + loose_config(in.config).stale_max() + 2;
  if (!uses_model(in.config)) {
    plan.memory.weights_and_gradients = copies * Quadratic::kWeights * int64_t{sizeof(float)};
    return plan;
  }
  plan = plan_of_model(model_settings(in, in.config.trainer.train.sequence_length));
  plan.one_rank = true;
  const StepMemory step = estimator_of(in.config.trainer).plan(in.config.trainer, *plan.model, 1, in.threads);
  plan.memory.activations = step.activations;
  plan.memory.assembled += step.copies;
  const TensorView values = plan.model->pool().trainable().values;
  plan.memory.optimizer = copies * (values.bytes() + step.optimizer);
  plan.memory.data = plan_data(in, true);
  return plan;
}

std::string smaller_simulation(const JobConfig& config, const MemoryPlan& plan) {
  if (matters(plan.activations, plan)) return lower_rows(config);
  return "train an adapter (adapter.method = \"lora\"): each of eight nodes holds what is trained";
}

int run_alone(const JobInputs& in) {
  const auto begin = Clock::now();
  const MemoryPlan memory = require_memory(in, plan_simulation(in));
  const SpsaConfig spsa = loose_config(in.config);
  TrainConfig train = in.config.trainer.train;
  train.steps = config_of(in.config).rounds;
  Subject subject;
  if (uses_model(in.config)) {
    Model::Settings settings = model_settings(in, train.sequence_length);
    settings.sharing.rules = kNewestRules;
    subject.model.emplace(settings);
    subject.sets = load_datasets(in, true, kNewestRules);
    require_known_tokens(in, *subject.model, *subject.sets);
    for (const std::string& notice : subject.sets->notices) tell(in, notice);
  }
  require_free_folder(run_folder_path(in));
  const RunFolder folder(run_folder_path(in), "auto", teller(in));
  tell(in, folder.notice());
  refuse_overwritten_inputs(in, folder.path());
  clear(folder);
  const Compute compute(compute_choice(in), memory.activations);
  const Context& ctx = compute;
  (subject.model ? set_up_model : set_up_quadratic)(in, spsa, train, ctx, subject);
  const SimReport report = run_simulation(in, spsa, subject, ctx, folder.path());
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  Json json = report.json();
  json.set("losses", subject.model ? "model" : "quadratic").set("wall_seconds", seconds);
  write_text_file(folder / kReport, json.dump(1) + "\n");
  if (!in.quiet) print_report(report, subject.model.has_value(), seconds, folder.path());
  if (report.divergence == 0) return kDone;
  fmt::print(stderr, "nodes that had applied the same rounds held different weights: {} of {} digests\n",
             report.divergence, report.compared);
  return kOurFault;
}

/// One process simulates; further ranks have nothing to do, and reading data is no business of theirs.
int run_simulate(const JobInputs& in) {
  if (in.world.rank() != 0) return kDone;
  const auto alone = self_communicator();
  return run_alone({in.config, in.recipe, *alone, in.threads, in.quiet, in.launched, data_share_of(*alone)});
}

void check_simulation(Recipe& recipe, const JobConfig& c) {
  const SpsaConfig spsa = loose_config(c);
  if (!config_of(c).nodes && !recipe.has("simulate", "nodes"))
    recipe.fault("simulate", "nodes", "simulate.nodes is not set", "--nodes N, or simulate.nodes = N");
  if (c.trainer.train.estimator != "spsa")
    return recipe.fault("train", "estimator",
                        fmt::format("train.estimator is \"{}\": nodes vote by SPSA", c.trainer.train.estimator),
                        "set train.estimator = \"spsa\"");
  check_spsa_method(recipe, spsa, {c.trainer, c.run, c.adapter, c.sharing});
  if (c.trainer.optimizer.lr == 0) recipe.fault("optimizer", "lr", "optimizer.lr is 0", "set a rate above 0");
  if (spsa.privacy.is_on())
    recipe.fault("privacy", "epsilon", "votes of simulated nodes are drawn by a seed, and so nothing is private",
                 "leave [privacy] out");
  if (!spsa.loose.signers.empty())
    recipe.fault("spsa", "signers", "simulated nodes sign no records", "leave spsa.signers out");
  if (!(device_of(c.run.device) == Device{}))
    recipe.fault("run", "device", "the weights of simulated nodes lie in the processor's memory",
                 "set run.device = \"cpu\"");
  if (!uses_model(c)) return;
  require_train_data(recipe, c.data);
  check_data_file(recipe, c, c.data.train, "data", "train");
}

}  // namespace

Job simulate_job() {
  return {.name = "simulate",
          .help = "a run of many loose nodes in one process, by simulated time (SPSA)",
          .run = run_simulate,
          .plan = plan_simulation,
          .smaller = smaller_simulation,
          .moves_values = true,
          .kept = "nothing is kept of it: the same command makes it again",
          .read = [](Recipe& recipe, JobConfig& c) { recipe.read("simulate", c.own.of<SimulateConfig>()); },
          .check = check_simulation,
          .outputs = [](const JobConfig&) -> std::vector<std::string> {
            return {kReport, "node.json", "nodes.json", "log/", "checkpoints/", "nodes/"};
          },
          .look = [](const JobInputs& in, Model*) { require_free_folder(run_folder_path(in)); }};
}

}  // namespace tessera
