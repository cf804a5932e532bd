#pragma once
// Branches: a new run that shares its first rounds with another.

#include "train/spsa/rounds.h"
#include "train/spsa/spsa_config.h"

namespace tessera {

/// Makes a run folder that goes on from the replica's round: the records before it under a new header, whose `parent`
/// names the run and the round, and so under a new run id and chain; a snapshot of the state; the metrics up to there.
/// It appears whole or not at all.
/// @param from  the log that the replica followed
/// @param run   the folder of its run, for the metrics; they may be absent
/// @throws UserError when the folder is there already, or the log does not begin with round 0
void write_branch(const Context&, const std::filesystem::path& folder, const StepLog& from,
                  const std::filesystem::path& run, Replica& at);

/// What write_branch refuses, before the work that leads there.
void require_free_for_branch(const std::filesystem::path& folder, const StepLog& from);

/// How a run is branched and the branch trained, for hints. Processes that share a folder have each their own start, a
/// branch has one: it is trained by one process, or by the ranks of one job.
std::string branch_command(const SpsaConfig&);

}  // namespace tessera
