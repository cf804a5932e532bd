#include "cli/opened_folder.h"

#include "cli/estimator_run.h"
#include "cli/notices.h"
#include "comm/stop_together.h"
#include "core/error.h"

namespace tessera {

std::unique_ptr<RunFolder> open_run_folder(const JobInputs& in) {
  constexpr const char* kWork = "waiting for the run folder";
  std::unique_ptr<RunFolder> folder;
  bool is_left = false;
  try {
    if (in.world.rank() == 0)
      folder = std::make_unique<RunFolder>(own_run_folder(in), in.config.run.resume, teller(in));
  } catch (const Stopped&) {
    is_left = true;
  }
  leave_together(in.world, is_left, kWork);
  return folder;
}

}  // namespace tessera
