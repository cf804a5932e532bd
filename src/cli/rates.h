#pragma once
// A run's learning rates in words: what --check prints, and what deserves a notice.

#include <optional>
#include <string>

#include "core/rules.h"
#include "train/train_config.h"

namespace tessera {

/// The rates of a run; the last one where the number of steps is known.
struct Rates {
  double first = 0, highest = 0;
  std::optional<double> last{};
};
/// @param steps  of the whole run, where they are known without the data
Rates rates_of(const OptimizerConfig&, std::optional<int64_t> steps, Rules = kNewestRules);
/// The same in words.
std::string rates_in_words(const OptimizerConfig&, std::optional<int64_t> steps, Rules = kNewestRules);

/// That warm-up takes the whole run, or that every rate is 0; empty otherwise.
std::string schedule_notice(const OptimizerConfig&, int64_t steps, Rules);

}  // namespace tessera
