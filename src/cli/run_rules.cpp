#include "cli/run_rules.h"

#include <array>
#include <optional>

#include "cli/spsa_run.h"
#include "io/files.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

std::optional<Rules> rules_of_log(const fs::path& log) {
  const fs::path header = log / "header.json";
  if (!fs::exists(header)) return std::nullopt;
  return RunHeader::parse(read_text_file(header), header.string()).rules;
}

/// What this rank knows.
std::optional<Rules> known_rules(const JobInputs& in, const fs::path& start, const fs::path& run_path) {
  if (in.config.trainer.train.estimator != "spsa") {
    if (start.empty() || in.world.rank() != 0) return std::nullopt;
    return read_chosen_checkpoint(start).rules;
  }
  if (const auto own = rules_of_log(rank_log_folder(run_path, in.world.rank()))) return own;
  return in.config.trainer.spsa.transport == "file" ? rules_of_log(shared_folder(in)) : std::nullopt;
}

}  // namespace

Rules rules_of_run(const JobInputs& in, const fs::path& start, const fs::path& run_path) {
  constexpr auto newest = static_cast<int64_t>(kNewestRules);
  const auto known = known_rules(in, start, run_path);
  // The oldest that any rank knows of: where they differ, the log's header tells what is wrong.
  std::array<double, 1> older{static_cast<double>(newest - static_cast<int64_t>(known.value_or(kNewestRules)))};
  in.world.all_reduce_max(std::span<double>(older));
  return rules_of(newest - static_cast<int64_t>(older[0]));
}

}  // namespace tessera
