#include "score/objective.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace tessera {

const std::vector<Objective>& objectives() {
  static const std::vector<Objective> all = {
      {.name = "tokens",
       .help = "the scored tokens' negative log-likelihood",
       .loss_sum = "nll",
       .loss_count = "scored",
       .rows = ExampleRows::answers,
       .gradient = HiddenGradient::cross_entropy},
      {.name = "choices",
       .help = "with data.label_words that of the right word among all",
       .loss_sum = "choices_nll",
       .loss_count = "choices",
       .rows = ExampleRows::choices,
       .gradient = HiddenGradient::none},
  };
  return all;
}

const Objective& objective_of(std::string_view name) {
  const auto& all = objectives();
  const auto found = std::find_if(all.begin(), all.end(), [&](const Objective& o) { return o.name == name; });
  TS_CHECK(found != all.end(), "objective \"{}\" passed the recipe's check", name);
  return *found;
}

// Sums, not means: the mean of nothing is NaN, and no fault.
bool are_finite(const LossSums& sums) {
  return std::all_of(objectives().begin(), objectives().end(),
                     [&](const Objective& o) { return std::isfinite(o.sum(sums)); });
}

std::vector<std::string> objective_names() {
  std::vector<std::string> names;
  for (const Objective& objective : objectives()) names.emplace_back(objective.name);
  return names;
}

std::string objective_help() {
  std::string help;
  for (const Objective& o : objectives()) help += fmt::format("{}{}: {}", help.empty() ? "" : "; ", o.name, o.help);
  return "what is lowered. " + help;
}

}  // namespace tessera
