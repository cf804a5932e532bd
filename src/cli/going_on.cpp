#include "cli/going_on.h"

#include <array>
#include <cstdio>
#include <set>

namespace tessera {
namespace fs = std::filesystem;
namespace {

/// Keys that may change between a run and its continuation.
bool may_differ(const std::string& key) {
  const std::string section = key.substr(0, key.find('.'));
  static const std::set<std::string> keys = {"data.cache",        "spsa.logs",   "spsa.compact", "spsa.perturb",
                                             "spsa.side_by_side", "spsa.shared", "spsa.machine", "spsa.machines"};
  return section == "run" || section == "checkpoint" || section == "log" || section == "evaluate" ||
         section == "replay" || keys.count(key) > 0;
}

}  // namespace

void require_same_run(const Recipe& recipe, const PackedDataset& data, const CheckpointMeta& saved,
                      const fs::path& file) {
  std::string differences;
  const std::map<std::string, std::string> before(saved.recipe.begin(), saved.recipe.end());
  for (const auto& [key, value] : recipe.flat()) {
    const auto found = before.find(key);
    const std::string old = found == before.end() ? "" : found->second;
    if (may_differ(key) || old == value) continue;
    differences +=
        fmt::format("{} was {}, now {}\n", key, old.empty() ? "not set" : old, value.empty() ? "not set" : value);
  }
  if (!differences.empty())
    throw UserError(
        file.string(), "this run cannot go on with another recipe",
        differences + (file.filename() == "run.json"
                           ? "undo the change, start anew with run.resume=never or another run.dir, or go on from a "
                             "round of it in a branch: job=replay replay.branch=FOLDER"
                           : "undo the change, or start anew with run.resume=never or another run.dir"));
  if (saved.data_hash != data.hash())
    throw UserError(
        file.string(), "this run cannot go on with other training data",
        "data.train has other contents now: undo the change, or start anew with run.resume=never or another run.dir");
}

void require_same_base(const std::string& base, const CheckpointMeta& saved, const fs::path& file) {
  if (saved.base_fingerprint != base)
    throw UserError(
        file.string(), "this run cannot go on with another base model",
        fmt::format(
            "model.path has another config.json or other weights now, or they are shared in another way (it was {}, now "
            "{}): put them back, or start anew with run.resume=never or another run.dir",
            saved.base_fingerprint.empty() ? "of its own" : saved.base_fingerprint,
            base.empty() ? "of its own" : base));
}

fs::path choose_start(const JobInputs& in, const RunFolder* folder, std::vector<std::string>& notices) {
  std::string chosen;
  if (folder) {
    const std::string& resume = in.config.run.resume;
    if (resume == "auto") {
      if (const auto newest = newest_checkpoint(*folder / "checkpoints", notices)) chosen = newest->string();
    } else if (resume != "never") {
      chosen = resume;
    }
  }
  return broadcast_text(in.world, chosen);
}

bool already_done(const JobInputs& in, const RunFolder* folder) {
  std::array<double, 1> done{0};
  if (folder && in.config.run.resume == "auto")
    if (const auto line = MetricsFile(*folder / "metrics.jsonl").done()) {
      std::puts(line->dump().c_str());
      done[0] = 1;
    }
  in.world.all_reduce_max(std::span<double>(done));
  return done[0] > 0;
}

}  // namespace tessera
