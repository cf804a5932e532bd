#include "train/spsa/spsa_estimator.h"

#include <cmath>
#include <limits>

#include "core/error.h"
#include "score/objective.h"
#include "steplog/nats_engine.h"
#include "steplog/signature.h"
#include "train/optimizers/optimizer.h"
#include "train/spsa/spsa_inputs.h"
#include "train/spsa/spsa_stepper.h"

namespace tessera {
namespace {

/// What the trainer's own keys may not be with it.
void check_trainer(Recipe& recipe, const TrainerConfig& trainer) {
  const TrainConfig& train = trainer.train;
  // The default is let pass: nobody has asked for it.
  if (train.clip != TrainConfig{}.clip && train.clip != 0)
    recipe.fault("train", "clip", "train.clip bounds gradients, and SPSA has none", "spsa.clip bounds votes");
  if (train.checkpoint_activations)
    recipe.fault("train", "checkpoint_activations", "SPSA keeps no activations", "leave it out");
}

void check_model(Recipe& recipe, const SpsaConfig& spsa, const AdapterConfig& adapter, const SharingConfig& sharing) {
  if (adapter.dropout > 0)
    recipe.fault("adapter", "dropout", "adapter.dropout is set, and SPSA compares losses of the same rows",
                 "leave it out");
  if (spsa.perturb == "layers" && (adapter.method != "none" || sharing.method != "none"))
    recipe.fault("spsa", "perturb", "spsa.perturb = \"layers\" is for weights that are each trained for themselves",
                 "leave it out");
}

void check_votes(Recipe& recipe, const SpsaConfig& spsa, const OptimizerConfig& optimizer) {
  if (spsa.normalise && spsa.sides != "one")
    recipe.fault("spsa", "normalise", "normalised votes compare the losses of one set of rows",
                 "set spsa.sides = \"one\"");
  if (spsa.normalise && spsa.probes < 2)
    recipe.fault("spsa", "probes", "the deviation of one loss is not known", "set spsa.probes to at least 2");
  // 63 · 4 = 252: a vote counts its bytes in a u8.
  if (spsa.votes == "float32" && spsa.probes > 63)
    recipe.fault("spsa", "probes", "a vote holds at most 255 bytes, that is 63 probes of float32");
  if (spsa.directions == "pool" && find_optimizer_kind(optimizer.name) && !adds_gradients_only(optimizer))
    recipe.fault("spsa", "directions", "a pool of directions keeps sums in place of an optimizer's state",
                 fmt::format("set optimizer.name = \"{}\", optimizer.momentum = 0 and optimizer.weight_decay = 0",
                             linear_optimizer().name));
  // Kernels add eps as f32, where it has to be a normal number.
  if (const auto eps = static_cast<float>(spsa.eps); eps < std::numeric_limits<float>::min() || !std::isfinite(eps))
    recipe.fault("spsa", "eps", fmt::format("spsa.eps is {}, beyond the range of f32", spsa.eps), "try 1e-3 to 1e-2");
}

void check_optimizer(Recipe& recipe, const OptimizerConfig& optimizer) {
  // alpha is the rate times 2^-unit, which is 2^20 at most: it stays below the 1e30 that a log accepts
  // (ChainRules::Limits).
  if (optimizer.lr > 1e20)
    recipe.fault("optimizer", "lr", fmt::format("optimizer.lr is {}", optimizer.lr), "at most 1e20 with spsa");
  // The factor 1 − lr · decay of a record is accepted from 0.5 to 1 (ChainRules::Limits).
  if (optimizer.lr * optimizer.weight_decay > 0.5)
    recipe.fault("optimizer", "weight_decay", "a step would shrink weights to less than a half of themselves",
                 "lower optimizer.lr or optimizer.weight_decay: their product is the share that a step takes");
}

void check_aggregate(Recipe& recipe, const SpsaConfig& spsa) {
  if (spsa.aggregate != "sum" && spsa.directions != "shared")
    recipe.fault("spsa", "aggregate", "votes along different directions cannot be compared",
                 "set spsa.directions = \"shared\", or leave spsa.aggregate out");
}

/// What machines with nothing but the log in common have to agree on stands in the log's header.
void check_terms(Recipe& recipe, const SpsaConfig& spsa, const TrainerConfig& trainer) {
  const bool is_loose = transport_named(spsa.transport).is_loose();
  if (!is_loose && spsa.loose.stale_max.value_or(0) > 0)
    recipe.fault("spsa", "stale_max", fmt::format("no vote is late with spsa.transport = \"{}\"", spsa.transport),
                 "leave it out");
  if (!is_loose && spsa.aggregate == "sum") return;
  const std::string why =
      is_loose ? "spsa.transport = \"nats\"" : fmt::format("spsa.aggregate = \"{}\"", spsa.aggregate);
  if (trainer.train.steps == 0)
    recipe.fault("train", "steps", fmt::format("train.steps is 0 with {}", why), "a run has one round at least");
  if (!trainer.train.steps)
    recipe.fault("train", "epochs", fmt::format("{} needs a number of rounds that all machines know", why),
                 "set train.steps: machines with different data would count other rounds");
  if (trainer.optimizer.lr == 0)
    recipe.fault("optimizer", "lr", fmt::format("optimizer.lr is 0 with {}", why), "set a rate above 0");
}

void check_loose(Recipe& recipe, const SpsaConfig& spsa) {
  if (!transport_named(spsa.transport).is_loose()) return;
  if (!has_nats())
    recipe.fault("spsa", "transport", "this trainer was built without NATS",
                 "install libnats-dev and build again, or use \"file\" or \"mpi\"");
  for (const std::string& signer : spsa.loose.signers) try {
      (void)parse_public_key(signer);
    } catch (const UserError& error) {
      recipe.fault("spsa", "signers", error.message(), "docs/loose_nodes.md tells how to print a public key");
    }
  if (spsa.loose.server.empty())
    recipe.fault("spsa", "server", "no server is named", "spsa.server = [\"nats://HOST:4222\"]");
  for (const std::string& server : spsa.loose.server) try {
      (void)parse_server(server);
    } catch (const UserError& error) {
      recipe.fault("spsa", "server", error.message(), error.hint());
    }
  const LooseConfig& loose = spsa.loose;
  for (const auto& [key, file] : {std::pair{"credentials", loose.credentials},
                                  {"tls_ca", loose.tls_ca},
                                  {"tls_cert", loose.tls_cert},
                                  {"tls_key", loose.tls_key},
                                  {"signing_key", loose.signing_key}})
    if (!file.empty() && !std::filesystem::exists(file))
      recipe.fault(
          "spsa", key, fmt::format("spsa.{} \"{}\" does not exist", key, file.string()),
          "a path on the command line begins in the working directory, one in a recipe in the recipe's folder");
  if (spsa.logs != "node")
    recipe.fault("spsa", "logs", "with spsa.transport = \"nats\" each machine keeps its own log", "leave it out");
}

void check_privacy(Recipe& recipe, const SpsaConfig& spsa, const TrainConfig& train) {
  if (!spsa.privacy.is_on()) return;
  const auto refuse = [&](const char* section, const char* key, const std::string& what, const std::string& hint) {
    recipe.fault(section, key, what, hint);
  };
  if (!transport_named(spsa.transport).is_loose())
    refuse("privacy", "epsilon", fmt::format("with spsa.transport = \"{}\" machines are one owner's", spsa.transport),
           "set spsa.transport = \"nats\", or leave [privacy] out");
  if (spsa.sides == "one")
    refuse("spsa", "sides", "with [privacy] each probe draws documents of its own", "leave spsa.sides out");
  if (spsa.normalise) refuse("spsa", "normalise", "a deviation of the losses would tell of them", "leave it out");
  if (spsa.votes == "float32")
    refuse("spsa", "votes", "the low bits of a float can tell what noise hides",
           "set spsa.votes = \"byte\" or \"sign\"");
  if (objective_of(train.objective).rows == ExampleRows::choices)
    refuse("train", "objective", "it scores several documents together, and [privacy] bounds each by itself",
           "leave it out");
}

void check_run(Recipe& recipe, const SpsaConfig& spsa, const RunConfig& run) {
  if (transport_named(spsa.transport).shares_folder() && spsa.machine >= spsa.machines)
    recipe.fault("spsa", "machine", fmt::format("machine {} of {}", spsa.machine, spsa.machines),
                 fmt::format("machines are numbered 0 .. {}", spsa.machines - 1));
  if (run.resume != "auto" && run.resume != "never")
    recipe.fault("run", "resume", "an SPSA run starts from its log, not from a checkpoint file",
                 "job = \"replay\" with replay.branch starts a new run from any round");
}

class Spsa final : public Estimator {
 public:
  const SpsaConfig& config() const { return config_; }

  std::string section() const override { return "spsa"; }
  void visit(Fields& v) override { config_.visit(v); }
  std::vector<MoreKeys> more_sections() override {
    return {{"privacy", [this](Fields& v) { config_.privacy.visit(v); }}};
  }

  void set_defaults(const Recipe& recipe, TrainerConfig& trainer) const override {
    if (!recipe.has("optimizer", "momentum")) trainer.optimizer.momentum = 0;
  }

  void check(Recipe& recipe, const RecipeParts& parts) const override {
    check_spsa_method(recipe, config_, parts);
    check_terms(recipe, config_, parts.trainer);
    check_loose(recipe, config_);
    check_privacy(recipe, config_, parts.trainer.train);
    check_run(recipe, config_, parts.run);
  }

  std::vector<UnreadGroup> unread() const override {
    const auto is = [](const char* key, const std::string& value) { return fmt::format("{} is \"{}\"", key, value); };
    std::vector<UnreadGroup> groups;
    if (config_.directions != "pool")
      groups.push_back({section(), {"pool_size"}, is("spsa.directions", config_.directions)});
    if (!transport().shares_folder())
      groups.push_back({section(), {"shared", "machine", "machines"}, is("spsa.transport", config_.transport)});
    if (!transport().is_loose()) {
      std::set<std::string> keys = LooseConfig::keys();
      keys.erase("stale_max");  // which is refused
      groups.push_back({section(), keys, is("spsa.transport", config_.transport)});
    }
    if (!config_.privacy.is_on())
      groups.push_back({"privacy", {"delta", "clip", "noise"}, "privacy.epsilon is not set"});
    if (transport().is_loose() && config_.loose.signers.empty())
      groups.push_back({section(), {"signing_key"}, "spsa.signers is empty: records are not signed"});
    if (config_.aggregate != "trimmed")
      groups.push_back({section(), {"trim_percent"}, is("spsa.aggregate", config_.aggregate)});
    // Signs have no range that they could leave, and floats have a unit of their own.
    if (config_.votes != "byte") groups.push_back({section(), {"adapt_unit"}, is("spsa.votes", config_.votes)});
    groups.push_back({"checkpoint",
                      {"best"},
                      is("train.estimator", "spsa") + ", whose log leads back to every round (job = \"replay\")"});
    return groups;
  }

  void check_ranks(const Recipe& recipe, int ranks) const override {
    if (ranks == 1) return;
    if (transport().shares_folder())
      throw UserError(recipe.where("spsa", "transport"),
                      fmt::format("spsa.transport = \"{}\" under {} ranks of one job", transport().name, ranks),
                      "start the processes one by one without a launcher, or leave spsa.transport out");
    if (!transport().is_loose()) return;
    // The ranks are one machine, and share its probes.
    if (config_.sides == "one")
      throw UserError(
          recipe.where("spsa", "sides"),
          fmt::format("the probes of a round share one batch and its loss, and {} ranks cannot divide them", ranks),
          "leave spsa.sides out, or start one rank");
    if (config_.privacy.is_on())
      throw UserError(recipe.where("privacy", "epsilon"),
                      fmt::format("one process draws documents and noise, and there are {} ranks", ranks),
                      "start one rank");
  }

  bool has_gradients() const override { return false; }

  int64_t rows_per_step(const TrainConfig& train, int shares) const override {
    const auto members = transport().join(standing_of(config_, {.count = shares}));
    return members->machines() * config_.rows_of_machine(train.batch);
  }

  std::unique_ptr<Stepper> make(const TrainerInputs& in) const override { return make_spsa_stepper(in, config_); }

  StepMemory plan(const TrainerConfig& trainer, Model& model, int shares, int threads) const override {
    const TensorView values = model.pool().trainable().values;
    const int64_t count = values.shape.count();
    const auto prober = make_prober(config_, model);
    // What ranks hand to each other is the values and the optimizer's vectors (Replica::pack); a pool's sums are few.
    const int64_t vectors = config_.directions == "pool" ? 0 : optimizer_state_bytes(trainer.optimizer, count);
    return {
        .optimizer = replica_state_bytes(config_, trainer.optimizer, count),
        .activations = prober->plan_bytes(prober->micro_rows(trainer.train), trainer.train.sequence_length, threads),
        .copies = prober->owned_bytes(),
        .handing_over = shares > 1 ? values.bytes() + vectors : 0};
  }

  LessMemory less_memory(const TrainerConfig&) const override {
    return {.way = config_.side_by_side > 1 ? "lower spsa.side_by_side" : "", .lowers_copies = true};
  }

  /// A vote: its head, a byte or four a probe, and the loss.
  Passes passes() const override {
    if (transport().processes != Transport::Processes::ranks_of_a_job) return {};
    return {.forward = config_.sides == "one" ? static_cast<double>(config_.probes) + 1 : 2.0};
  }
  int64_t wire_bytes(Model&) const override {
    // A vote's fixed fields are 19 bytes (steplog/vote.cpp), the loss is an f16.
    return transport().manners.bytes_of_message + 19 + config_.probes * (config_.votes == "float32" ? 4 : 1) + 2;
  }

  Words words() const override {
    return {.sent = "one vote",
            .sent_in_step = "sent by a machine in a round",
            .spared = "; no gradients, no saved activations",
            .lower_rate = " (a round with fewer votes bears less)"};
  }

  /// A process that shares a folder with others would begin a run folder anew, and find the run in what is shared.
  Anew anew() const override {
    if (transport().is_loose()) return {.by_resume = false, .places = "run.dir and spsa.name"};
    if (!transport().shares_folder()) return {};
    return {.by_resume = false, .places = config_.shared.empty() ? "run.dir" : "run.dir and spsa.shared"};
  }

 private:
  const Transport& transport() const { return transport_named(config_.transport); }

  SpsaConfig config_;
};

}  // namespace

void check_spsa_method(Recipe& recipe, const SpsaConfig& spsa, const RecipeParts& parts) {
  check_trainer(recipe, parts.trainer);
  check_model(recipe, spsa, parts.adapter, parts.sharing);
  check_votes(recipe, spsa, parts.trainer.optimizer);
  check_optimizer(recipe, parts.trainer.optimizer);
  check_aggregate(recipe, spsa);
}

const SpsaConfig& spsa_config(const TrainerConfig& config) {
  return dynamic_cast<const Spsa&>(config.estimators.named("spsa")).config();
}

Standing standing_of(const SpsaConfig& config, const DataShare& share) {
  return {.rank = share.index, .ranks = share.count, .machine = config.machine, .machines = config.machines};
}

int64_t replica_state_bytes(const SpsaConfig& config, const OptimizerConfig& optimizer, int64_t count) {
  // A start value (f32) and a 64-bit sum a weight, a 64-bit sum a direction: what SeedPool holds.
  if (config.directions == "pool") return 12 * count + 8 * config.pool_size;
  return optimizer_state_bytes(optimizer, count);
}

std::unique_ptr<Estimator> make_spsa() { return std::make_unique<Spsa>(); }

}  // namespace tessera
