#include "cli/stopped.h"

#include "core/error.h"
#include "train/checkpoint.h"
#include "train/divergence.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

bool holds_steps(const fs::path& run) {
  std::vector<std::string> ignored;
  return fs::exists(run / "log" / "header.json") || newest_checkpoint(run / "checkpoints", ignored).has_value();
}

}  // namespace

std::string how_it_goes_on(const JobInputs& in, const fs::path& run) {
  if (!holds_steps(run)) return "the same command starts again";
  if (in.config.run.resume == "auto") return "the same command goes on";
  return fmt::format("the same command with run.resume=auto {} goes on", shell_word("run.dir=" + run.string()));
}

}  // namespace tessera
