#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/decimal.h"
#include "core/error.h"
#include "train/optimizers/optimizer.h"

namespace tessera {

const std::vector<OptimizerKind>& optimizer_kinds() {
  static const std::vector<OptimizerKind> kinds = {
      {"adamw", "Adam with decoupled weight decay", make_adamw, [](const OptimizerConfig&) { return int64_t{2}; }},
      {"sgd", "stochastic gradient descent with momentum", make_sgd,
       [](const OptimizerConfig& config) { return int64_t{config.momentum > 0}; }},
  };
  return kinds;
}

namespace {

const OptimizerKind& kind_of(const OptimizerConfig& config) {
  const auto& kinds = optimizer_kinds();
  const auto kind =
      std::find_if(kinds.begin(), kinds.end(), [&](const OptimizerKind& k) { return k.name == config.name; });
  TS_CHECK(kind != kinds.end(), "optimizer \"{}\" passed the recipe's check", config.name);
  return *kind;
}

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, int64_t count, Rules rules, Device device) {
  return kind_of(config).make(config, count, rules, device);
}

int64_t optimizer_state_bytes(const OptimizerConfig& config, int64_t count) {
  return kind_of(config).state_vectors(config) * count * size_of(DType::f32);
}

void OptimizerConfig::visit(Fields& v) {
  std::vector<std::string> names;
  for (const OptimizerKind& kind : optimizer_kinds()) names.emplace_back(kind.name);
  v("name", name, one_of(names), "update rule");
  v("lr", lr, in_f32(at_least(0)), "peak learning rate", OnResume::in_new_folder);
  v("beta1", beta1, in_f32(in_range(0, 0.99999)), "adamw: decay of the mean of gradients", OnResume::in_new_folder);
  v("beta2", beta2, in_f32(in_range(0, 0.9999999)), "adamw: decay of the mean of squared gradients",
    OnResume::in_new_folder);
  v("eps", eps, in_f32(above(0)), "adamw: added to the root of the second moment", OnResume::in_new_folder);
  v("weight_decay", weight_decay, in_f32(at_least(0)), "decoupled decay, of everything but norms",
    OnResume::in_new_folder);
  v("momentum", momentum, in_f32(in_range(0, 0.99999)), "sgd: decay of the velocity; with spsa 0 unless given");
  v("schedule", schedule, one_of({"linear", "cosine", "constant"}), "shape of the learning rate after warm-up",
    OnResume::in_new_folder);
  v("warmup_steps", warmup_steps, at_least(0),
    "steps of linear warm-up, from a rate of 0 at step 1; no more than all steps", OnResume::in_new_folder);
  v("warmup_ratio", warmup_ratio, in_range(0, 1), "warm-up as a share of all steps, used when warmup_steps is 0",
    OnResume::in_new_folder);
  v("final_ratio", final_ratio, in_range(0, 1),
    "share of lr that the rate falls to (linear, cosine), reached one step after the last", OnResume::in_new_folder);
}

int64_t warmup_steps(const OptimizerConfig& config, int64_t total, Rules rules) {
  if (config.warmup_steps > 0) return std::min(config.warmup_steps, total);
  return rules == Rules::first ? static_cast<int64_t>(std::ceil(config.warmup_ratio * static_cast<double>(total)))
                               : ceil_of_share(config.warmup_ratio, total);
}

double learning_rate(const OptimizerConfig& config, int64_t step, int64_t total, Rules rules) {
  const int64_t warmup = warmup_steps(config, total, rules), s = step - 1;
  if (s < warmup) return config.lr * static_cast<double>(s) / static_cast<double>(warmup);
  if (config.schedule == "constant") return config.lr;
  const double progress =
      std::clamp(static_cast<double>(s - warmup) / static_cast<double>(std::max<int64_t>(1, total - warmup)), 0.0, 1.0);
  const double shape = config.schedule == "linear" ? 1 - progress : 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return config.lr * (config.final_ratio + (1 - config.final_ratio) * shape);
}

int64_t Optimizer::state_bytes() {
  int64_t bytes = 0;
  visit_state([&](const std::string&, TensorView state) { bytes += state.bytes(); });
  return bytes;
}

}  // namespace tessera
