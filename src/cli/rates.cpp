#include "cli/rates.h"

#include <fmt/core.h>

#include <algorithm>

#include "core/error.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

double highest_rate(const OptimizerConfig& config, int64_t steps, Rules rules) {
  const int64_t peak = std::min(steps, warmup_steps(config, steps, rules) + 1);
  return steps > 0 ? learning_rate(config, peak, steps, rules) : 0;
}

}  // namespace

Rates rates_of(const OptimizerConfig& config, std::optional<int64_t> steps, Rules rules) {
  if (steps && *steps > 0)
    return {.first = learning_rate(config, 1, *steps, rules),
            .highest = highest_rate(config, *steps, rules),
            .last = learning_rate(config, *steps, *steps, rules)};
  const bool warms_up = config.warmup_steps > 0 || config.warmup_ratio > 0;
  return {.first = warms_up ? 0.0 : config.lr, .highest = config.lr, .last = {}};
}

std::string rates_in_words(const OptimizerConfig& config, std::optional<int64_t> steps, Rules rules) {
  const Rates rates = rates_of(config, steps, rules);
  const std::string text = fmt::format("first {:.3g}, highest {:.3g}", rates.first, rates.highest);
  if (rates.last) return fmt::format("{}, last {:.3g}", text, *rates.last);
  const double end = config.schedule == "constant" ? config.lr : config.lr * config.final_ratio;
  return fmt::format("{}; one step after the last it is {:.3g}", text, end);
}

std::string schedule_notice(const OptimizerConfig& config, int64_t steps, Rules rules) {
  if (steps == 0) return "";
  if (highest_rate(config, steps, rules) == 0)
    return config.lr == 0
               ? "note: optimizer.lr is 0: nothing is learned"
               : "note: the only step has a learning rate of 0, with which warm-up begins: nothing is learned; train "
                 "longer, or set optimizer.warmup_steps = 0 and optimizer.warmup_ratio = 0";
  if (warmup_steps(config, steps, rules) < steps) return "";
  const int64_t asked = std::max(config.warmup_steps, steps);
  return fmt::format(
      "note: warm-up takes {} steps, the run has {}: the learning rate ends at {:.3g} and never is optimizer.lr ({:.3g}); "
      "lower optimizer.warmup_steps or optimizer.warmup_ratio",
      asked, steps, learning_rate(config, steps, steps, rules), config.lr);
}

}  // namespace tessera
