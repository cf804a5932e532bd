#pragma once
// A replica with its log: what a process holds on disk and in memory of a shared-seed run, and how it catches up.

#include <functional>
#include <memory>

#include "steplog/step_log.h"
#include "train/spsa/packer.h"

namespace tessera {

/// What a replay went through.
struct ReplayCount {
  int64_t rounds = 0, votes = 0, digests = 0, snapshots = 0;
};

/// Brings the replica from base (or the newest snapshot in `snapshots` that the log vouches for and that is not past
/// `last_round`) to `last_round` by the records of the log; every digest on the way is compared.
/// @param snapshots  a folder, or empty: from the base
/// @throws Stopped between two runs of records when a stop was asked for
/// @throws UserError when the log does not reach back far enough, or a digest differs
ReplayCount replay(const Context&, Replica&, const StepLog&, const std::filesystem::path& snapshots,
                   uint32_t last_round);

/// Where a run keeps its things, given its folder or that of its log.
struct RunPlaces {
  std::filesystem::path run, log;
};
/// As they were given: relative paths stay relative. @throws UserError when there is no log
RunPlaces find_log(const std::filesystem::path& run_or_log);

/// Votes that a ROUND holds, late ones among them.
int64_t votes_in(const Record&, int64_t bytes_per_probe);

/// Rounds that the log holds.
uint32_t rounds_in(const StepLog&);

/// A record that every honest replica refuses ends the run: none may go on without it.
[[noreturn]] void throw_poisoned(uint64_t index, const Refusal&);

}  // namespace tessera
