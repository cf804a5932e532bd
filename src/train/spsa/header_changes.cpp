#include "train/spsa/header_changes.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

std::string in_words(VoteKind votes) {
  return votes == VoteKind::byte ? "byte" : votes == VoteKind::sign ? "sign" : "float32";
}

std::string in_words(Family family) {
  switch (family) {
    case Family::independent:
      return "independent";
    case Family::shared:
      return "shared";
    case Family::pool:
      return "pool";
    case Family::hadamard:
      return "hadamard";
  }
  return "";
}

std::string in_words(const std::vector<std::string>& keys) {
  return keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, ", "));
}
std::string in_words(Aggregate aggregate) {
  return aggregate == Aggregate::sum ? "sum" : aggregate == Aggregate::median ? "median" : "trimmed";
}
std::string in_words(const std::string& text) { return text; }
std::string in_words(bool value) { return value ? "true" : "false"; }
template <class Number> std::string in_words(Number value) { return fmt::format("{}", value); }

class Changes {
 public:
  template <class T> void compare(const std::string& key, const T& before, const T& now) {
    if (before != now) found_.push_back({key, in_words(before), in_words(now)});
  }
  bool are_none() const { return found_.empty(); }
  std::vector<HeaderChange> take() { return std::move(found_); }

 private:
  std::vector<HeaderChange> found_;
};

bool reads(const RunHeader& header, const char* key) {
  const OptimizerKind* kind = find_optimizer_kind(header.optimizer);
  return kind && kind->reads(key);
}

void compare_optimizers(const RunHeader& before, const RunHeader& now, Changes& changes) {
  changes.compare("optimizer.name", before.optimizer, now.optimizer);
  const auto compare = [&](const char* key, double was, double is) {
    if (reads(before, key) && reads(now, key)) changes.compare(std::string("optimizer.") + key, was, is);
  };
  compare("momentum", before.momentum, now.momentum);
  compare("beta1", before.beta1, now.beta1);
  compare("beta2", before.beta2, now.beta2);
  compare("eps", before.adam_eps, now.adam_eps);
}

void compare_probes(const RunHeader& before, const RunHeader& now, Changes& changes) {
  changes.compare("spsa.probes", before.m, now.m);
  changes.compare("spsa.eps", static_cast<float>(before.eps), static_cast<float>(now.eps));
  changes.compare("spsa.directions", before.family, now.family);
  if (before.family == now.family)
    changes.compare(now.family == Family::pool ? "spsa.pool_size" : "the number of Hadamard lanes", before.lanes,
                    now.lanes);
  changes.compare("spsa.votes", before.votes, now.votes);
  changes.compare("spsa.unit", before.unit, now.unit);
  if (before.votes == now.votes) changes.compare("spsa.adapt_unit", before.adapt_unit, now.adapt_unit);
  changes.compare("spsa.clip", before.clip, now.clip);
  changes.compare("spsa.digest_every", before.digest_every, now.digest_every);
  changes.compare("the number of rounds that a vote may be late", before.stale_max, now.stale_max);
}

/// A run without terms takes its rate and length from the recipe of each job, and adds votes.
void compare_terms(const RunHeader& before, const RunHeader& now, Changes& changes) {
  const HeaderTerms was = before.terms.value_or(HeaderTerms{}), is = now.terms.value_or(HeaderTerms{});
  changes.compare("spsa.aggregate", was.aggregate, is.aggregate);
  if (before.format() != now.format()) changes.compare("the header's format", before.format(), now.format());
  if (!before.terms || !now.terms) return;
  if (was.aggregate == Aggregate::trimmed) changes.compare("spsa.trim_percent", was.trim_percent, is.trim_percent);
  changes.compare("train.steps", was.rounds, is.rounds);
  changes.compare("optimizer.lr", was.rate.lr, is.rate.lr);
  changes.compare("optimizer.schedule", was.rate.schedule, is.rate.schedule);
  changes.compare("the number of warm-up steps", was.rate.warmup_steps, is.rate.warmup_steps);
  changes.compare("optimizer.final_ratio", was.rate.final_ratio, is.rate.final_ratio);
  changes.compare("optimizer.weight_decay", was.rate.weight_decay, is.rate.weight_decay);
  changes.compare("spsa.signers", was.signers, is.signers);
  const auto of = [](const HeaderTerms& terms) { return terms.privacy.value_or(HeaderTerms::Privacy{}); };
  changes.compare("privacy.epsilon", of(was).epsilon, of(is).epsilon);
  changes.compare("privacy.delta", of(was).delta, of(is).delta);
  changes.compare("privacy.clip", of(was).clip, of(is).clip);
}

/// The first tensor that differs: a name, a shape, a place or a factor.
void compare_tensors(const RunHeader& before, const RunHeader& now, Changes& changes) {
  const auto [there, here] =
      std::mismatch(before.manifest.begin(), before.manifest.end(), now.manifest.begin(), now.manifest.end());
  changes.compare("a trained tensor ([adapter], [sharing], train.freeze and model.path decide)",
                  there == before.manifest.end() ? "" : *there, here == now.manifest.end() ? "" : *here);
}

}  // namespace

std::vector<HeaderChange> header_changes(const RunHeader& before, const RunHeader& now) {
  Changes changes;
  changes.compare("train.seed", before.seed, now.seed);
  compare_probes(before, now, changes);
  compare_optimizers(before, now, changes);
  compare_terms(before, now, changes);
  Changes of_model;
  of_model.compare("what is trained ([adapter] or [sharing])", before.selection, now.selection);
  compare_tensors(before, now, of_model);
  if (before.seed == now.seed)  // which weights may be drawn from
    of_model.compare("the hash of the frozen weights (model.path)", before.base, now.base);
  const bool is_same_model = of_model.are_none();
  std::vector<HeaderChange> found = changes.take();
  for (HeaderChange& change : of_model.take()) found.push_back(std::move(change));
  if (is_same_model && before.seed == now.seed && before.start != now.start)
    found.push_back({"the digest of the values that training begins with (model.path, adapter.load, sharing.load)",
                     before.start, now.start});
  if (before.rules != now.rules)
    found.push_back({"the number of the run's rules", in_words(static_cast<int>(before.rules)),
                     in_words(static_cast<int>(now.rules))});
  return found;
}

}  // namespace tessera
