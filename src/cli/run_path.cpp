#include "cli/run_path.h"

namespace tessera {

std::filesystem::path run_folder_path(const JobInputs& in) {
  return in.config.run.dir.empty() ? std::filesystem::path("runs") / in.recipe.name() : in.config.run.dir;
}

}  // namespace tessera
