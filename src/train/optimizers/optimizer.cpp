// What optimizers share: a step is a walk over the slots, and the learning rate is a function of the step's number.

#include "train/optimizers/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/decimal.h"
#include "core/functions/functions.h"

namespace tessera {

void Optimizer::step(const Context& ctx, FlatParams& params, const StepInfo& info) {
  // In f64, from the number of the step: a run that goes on needs nothing but that number.
  const auto correction = [&](double beta) { return 1 - functions::pow(beta, static_cast<double>(info.step)); };
  const RunStep step{.lr = info.lr,
                     .grad_scale = info.grad_scale,
                     .corrections = {correction(config_.beta1), correction(config_.beta2)}};
  for (const TrainableSlot& slot : params.slots) {
    const auto whole = [&](const TensorView& flat) {
      return flat.slice_rows(slot.begin, slot.begin + slot.shape.count());
    };
    step_run(ctx, {.slot = slot, .begin = 0, .values = whole(params.values), .grads = whole(params.grads)}, step);
  }
}

int64_t Optimizer::state_bytes() {
  int64_t bytes = 0;
  visit_state([&](const std::string&, TensorView state) { bytes += state.bytes(); });
  return bytes;
}

int64_t warmup_steps(const OptimizerConfig& config, int64_t total, Rules rules) {
  if (config.warmup_steps > 0) return std::min(config.warmup_steps, total);
  return rules == Rules::first ? static_cast<int64_t>(std::ceil(config.warmup_ratio * static_cast<double>(total)))
                               : ceil_of_share(config.warmup_ratio, total);
}

double learning_rate(const OptimizerConfig& config, int64_t step, int64_t total, Rules rules) {
  // Schedules count from 0, steps from 1: with a warm-up the first step has a rate of 0.
  const int64_t warmup = warmup_steps(config, total, rules), s = step - 1;
  if (s < warmup) return config.lr * static_cast<double>(s) / static_cast<double>(warmup);
  if (config.schedule == "constant") return config.lr;
  const double progress =
      std::clamp(static_cast<double>(s - warmup) / static_cast<double>(std::max<int64_t>(1, total - warmup)), 0.0, 1.0);
  const double shape =
      config.schedule == "linear" ? 1 - progress : 0.5 * (1 + functions::cos(std::numbers::pi * progress));
  return config.lr * (config.final_ratio + (1 - config.final_ratio) * shape);
}

}  // namespace tessera
