#include "cli/run_rules.h"

#include <array>
#include <optional>

#include "cli/estimator_run.h"

namespace tessera {
namespace fs = std::filesystem;

Rules rules_of_run(const JobInputs& in, const fs::path& start, const fs::path& run_path) {
  constexpr auto newest = static_cast<int64_t>(kNewestRules);
  const auto known = estimator_run(in.config).known_rules(in, start, run_path);
  // The oldest that any rank knows of: where they differ, the log's header tells what is wrong.
  std::array<double, 1> older{static_cast<double>(newest - static_cast<int64_t>(known.value_or(kNewestRules)))};
  in.world.all_reduce_max(std::span<double>(older));
  return rules_of(newest - static_cast<int64_t>(older[0]));
}

}  // namespace tessera
