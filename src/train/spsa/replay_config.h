#pragma once
#include "core/fields.h"

namespace tessera {

/// [replay]: rebuilding a shared-seed run from base and log (job = "replay").
struct ReplayConfig {
  std::filesystem::path log, branch;
  std::optional<int64_t> round;
  bool from_base = true;

  void visit(Fields& v) {
    v("log", log, anything(),
      "folder of a run or of its log; empty: run.dir is the run, and the results go beside it, into <run.dir>-replay",
      OnResume::free);
    v("round", round, in_range(0, 4294967295.0), "rounds to apply; default: all that the log holds", OnResume::free);
    v("from_base", from_base, anything(),
      "true: from the base model and the log alone, every digest compared; false: from the newest snapshot beside the log",
      OnResume::free);
    v("branch", branch, anything(),
      "a new run's folder: the log up to the round, cut off under a name of its own, for a training to go on from; "
      "nothing is exported then",
      OnResume::free);
  }
};

}  // namespace tessera
