// The list of estimators whose runs are other than folders of checkpoints.

#include "cli/estimator_run.h"
#include "cli/spsa_run.h"

namespace tessera {

const std::vector<ListedRun>& estimator_runs() {
  static const std::vector<ListedRun> runs = {
      {"spsa", spsa_run()},
  };
  return runs;
}

}  // namespace tessera
