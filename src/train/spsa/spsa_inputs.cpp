// Most of a header follows from the recipe and the model. Of a run that has a log some of it is taken from there: what
// a later job cannot know (the parent), and what depended on the number of machines that it began with (K).

#include "train/spsa/spsa_inputs.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "io/files.h"
#include "train/optimizers/optimizer.h"
#include "train/spsa/replica.h"

namespace tessera {
namespace {

VoteKind kind_of(const std::string& votes) {
  return votes == "sign" ? VoteKind::sign : votes == "float32" ? VoteKind::float32 : VoteKind::byte;
}

Family family_of(const std::string& directions) {
  return directions == "shared"     ? Family::shared
         : directions == "pool"     ? Family::pool
         : directions == "hadamard" ? Family::hadamard
                                    : Family::independent;
}

/// K of the Hadamard family: room for all votes of a round, and for as many machines again.
int64_t hadamard_lanes(int64_t votes) {
  return std::min<int64_t>(8192, static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(2 * votes))));
}

bool needs_terms(const SpsaConfig& config) {
  return config.aggregate != "sum" || transport_named(config.transport).is_loose();
}

/// Machines with nothing but the log in common offer the same rate, whatever each one's data are.
HeaderTerms terms_of(const SpsaConfig& config, const TrainConfig& train, const OptimizerConfig& optimizer,
                     Rules rules) {
  HeaderTerms terms;
  terms.aggregate = config.aggregate == "median"    ? Aggregate::median
                    : config.aggregate == "trimmed" ? Aggregate::trimmed
                                                    : Aggregate::sum;
  terms.trim_percent = config.trim_percent;
  terms.rounds = train.steps.value_or(1);
  terms.signers = config.loose.signers;
  std::ranges::sort(terms.signers);
  if (const PrivacyConfig& privacy = config.privacy; privacy.is_on())
    terms.privacy = {.clip = privacy.clip, .delta = privacy.delta, .epsilon = *privacy.epsilon};
  terms.rate.lr = optimizer.lr;
  terms.rate.weight_decay = optimizer.weight_decay;
  terms.rate.schedule = optimizer.schedule;
  terms.rate.warmup_steps = warmup_steps(optimizer, terms.rounds, rules);
  terms.rate.final_ratio = optimizer.final_ratio;
  return terms;
}

}  // namespace

std::filesystem::path rank_log_folder(const std::filesystem::path& run_path, int rank) {
  return run_path / (rank == 0 ? "log" : fmt::format("log-rank-{:05}", rank));
}

std::unique_ptr<Prober> make_prober(const SpsaConfig& config, Model& model) {
  const bool layers =
      config.perturb == "layers" || (config.perturb == "auto" && !model.bound_adapter() && !model.is_shared());
  return std::make_unique<Prober>(model, layers ? Prober::Perturb::layers : Prober::Perturb::copies,
                                  config.side_by_side);
}

std::string selection_of(Model& model) {
  if (model.adapter()) return model.adapter()->descriptor().dump();
  return model.is_shared() ? model.sharing().descriptor().dump() : "all";
}

RunHeader make_header(const SpsaConfig& config, const TrainConfig& train, const OptimizerConfig& optimizer,
                      Model& model, const std::string& base, int machines, Rules rules,
                      const std::filesystem::path& log, const Context& ctx) {
  const HeaderSubject subject{.params = model.pool().trainable(), .base = base, .selection = selection_of(model)};
  return make_header(config, train, optimizer, subject, machines, rules, log, ctx);
}

RunHeader make_header(const SpsaConfig& config, const TrainConfig& train, const OptimizerConfig& optimizer,
                      const HeaderSubject& subject, int machines, Rules rules, const std::filesystem::path& log,
                      const Context& ctx) {
  RunHeader header;
  header.rules = rules;
  header.base = subject.base;
  header.selection = subject.selection;
  header.start = values_digest(ctx, subject.params, subject.params.values).text();
  header.manifest = manifest_of(subject.params);
  header.seed = static_cast<uint64_t>(train.seed);
  // The f32 that the kernels add: the quotient is formed with what was really gone.
  header.eps = static_cast<double>(static_cast<float>(config.eps));
  header.unit = config.unit_exponent();
  header.votes = kind_of(config.votes);
  header.adapt_unit = config.adapt_unit && header.votes == VoteKind::byte;
  header.m = config.probes;
  header.family = family_of(config.directions);
  const bool is_loose = transport_named(config.transport).is_loose();  // how many machines there will be is not known
  header.lanes = header.family == Family::hadamard ? (is_loose ? 8192 : hadamard_lanes(config.probes * machines))
                 : header.family == Family::pool   ? config.pool_size
                                                   : 0;
  if (needs_terms(config)) header.terms = terms_of(config, train, optimizer, rules);
  header.clip = config.clip;
  header.stale_max = config.stale_max();
  header.digest_every = config.digest_every;
  header.optimizer = optimizer.name;
  const OptimizerKind& kind = optimizer_kind(optimizer);
  header.momentum = kind.reads("momentum") ? optimizer.momentum : 0;
  const auto set_adamw = [&](double beta1, double beta2, double eps) {
    header.beta1 = beta1;
    header.beta2 = beta2;
    header.adam_eps = eps;
  };
  set_adamw(optimizer.beta1, optimizer.beta2, optimizer.eps);
  if (const auto file = log / "header.json"; std::filesystem::exists(file)) {
    const RunHeader before = RunHeader::parse(read_text_file(file), file.string());
    header.parent = before.parent;
    if (!kind.reads("beta1")) set_adamw(before.beta1, before.beta2, before.adam_eps);  // which nobody reads
    if (header.family == Family::hadamard && before.family == Family::hadamard) header.lanes = before.lanes;
  }
  // Up to 8192 lanes all votes of a round have to fit into one group. With as many as that they are cut into groups.
  if (header.family == Family::hadamard && header.lanes < 8192 && header.lanes < header.m * machines)
    throw UserError("spsa.directions",
                    fmt::format("{} machines with {} probes need more than the run's {} Hadamard lanes", machines,
                                header.m, header.lanes),
                    "go on with fewer ranks, or start anew");
  return header;
}

}  // namespace tessera
