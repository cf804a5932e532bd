#include <algorithm>

#include "core/error.h"
#include "train/optimizers/optimizer.h"

namespace tessera {

std::unique_ptr<Optimizer> make_adamw(const OptimizerConfig&, int64_t count, Rules, Device);
std::unique_ptr<Optimizer> make_sgd(const OptimizerConfig&, int64_t count, Rules, Device);

const std::vector<OptimizerKind>& optimizer_kinds() {
  static const std::vector<OptimizerKind> kinds = {
      {"adamw",
       "Adam with decoupled weight decay",
       {"beta1", "beta2", "eps"},
       make_adamw,
       [](const OptimizerConfig&) { return int64_t{2}; },
       true},
      {"sgd",
       "stochastic gradient descent with momentum",
       {"momentum"},
       make_sgd,
       [](const OptimizerConfig& config) { return int64_t{config.momentum > 0}; }},
  };
  return kinds;
}

bool OptimizerKind::reads(std::string_view key) const { return std::find(keys.begin(), keys.end(), key) != keys.end(); }

const OptimizerKind* find_optimizer_kind(std::string_view name) {
  const auto& kinds = optimizer_kinds();
  const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const OptimizerKind& k) { return k.name == name; });
  return kind == kinds.end() ? nullptr : &*kind;
}

const OptimizerKind& optimizer_kind(const OptimizerConfig& config) {
  const OptimizerKind* kind = find_optimizer_kind(config.name);
  TS_CHECK(kind, "optimizer \"{}\" passed the recipe's check", config.name);
  return *kind;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, int64_t count, Rules rules, Device device) {
  return optimizer_kind(config).make(config, count, rules, device);
}

const OptimizerKind* smaller_optimizer(const OptimizerConfig& config) {
  const auto& kinds = optimizer_kinds();
  const auto smallest =
      std::min_element(kinds.begin(), kinds.end(), [&](const OptimizerKind& a, const OptimizerKind& b) {
        return a.state_vectors(config) < b.state_vectors(config);
      });
  return smallest->state_vectors(config) < optimizer_kind(config).state_vectors(config) ? &*smallest : nullptr;
}

bool adds_gradients_only(const OptimizerConfig& config) {
  return config.weight_decay == 0 && make_optimizer(config, 0)->is_linear();
}

const OptimizerKind& linear_optimizer() {
  const auto& kinds = optimizer_kinds();
  const auto linear = std::find_if(kinds.begin(), kinds.end(), [](const OptimizerKind& kind) {
    OptimizerConfig config;
    config.name = kind.name;
    config.momentum = 0;
    return make_optimizer(config, 0)->is_linear();
  });
  TS_CHECK(linear != kinds.end(), "no optimizer is linear");
  return *linear;
}

int64_t optimizer_state_bytes(const OptimizerConfig& config, int64_t count) {
  return optimizer_kind(config).state_vectors(config) * count * size_of(DType::f32);
}

// Here and not in the header: the choices of `name` are those of the list above.
void OptimizerConfig::visit(Fields& v) {
  std::vector<std::string> names;
  for (const OptimizerKind& kind : optimizer_kinds()) names.emplace_back(kind.name);
  v("name", name, one_of(names), "update rule");
  v("lr", lr, in_f32(at_least(0)), "peak learning rate", OnResume::rate);
  v("beta1", beta1, in_f32(in_range(0, 0.99999)), "adamw: decay of the mean of gradients", OnResume::from_checkpoint);
  v("beta2", beta2, in_f32(in_range(0, 0.9999999)), "adamw: decay of the mean of squared gradients",
    OnResume::from_checkpoint);
  v("eps", eps, in_f32(above(0)), "adamw: added to the root of the second moment", OnResume::from_checkpoint);
  v("weight_decay", weight_decay, in_f32(at_least(0)), "decoupled decay, of everything but norms and biases",
    OnResume::in_new_folder);
  v("momentum", momentum, in_f32(in_range(0, 0.99999)), "sgd: decay of the velocity; with spsa 0 unless given");
  v("schedule", schedule, one_of({"linear", "cosine", "constant"}), "shape of the learning rate after warm-up",
    OnResume::rate);
  v("warmup_steps", warmup_steps, at_least(0),
    "steps of linear warm-up, from a rate of 0 at step 1; no more than all steps", OnResume::rate);
  v("warmup_ratio", warmup_ratio, in_range(0, 1), "warm-up as a share of all steps, used when warmup_steps is 0",
    OnResume::rate);
  v("final_ratio", final_ratio, in_range(0, 1),
    "share of lr that the rate falls to (linear, cosine), reached one step after the last", OnResume::rate);
}

}  // namespace tessera
