#include "cli/run_path.h"

namespace tessera {

std::filesystem::path run_folder_path(const JobInputs& in) {
  return in.config.run.dir.empty() ? std::filesystem::path("runs") / in.recipe.name() : in.config.run.dir;
}

bool holds_run(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder / "metrics.jsonl") ||
         std::filesystem::exists(folder / "compress" / "journal.jsonl");
}

}  // namespace tessera
