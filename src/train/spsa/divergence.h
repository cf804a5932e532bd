#pragma once
// What to do about a run that has diverged, in commands that work.

#include <string>

#include "model/model.h"
#include "steplog/step_log.h"
#include "train/spsa/replica.h"

namespace tessera {

/// The last round before which the run was well: no vote was invalid, and the mean loss, where the log has it, was no
/// higher than in round 0, but for noise. 0 when that is the start, or when the log has lost its first rounds:
/// a branch keeps all of its own.
uint32_t last_good_round(const StepLog&, int64_t bytes_per_probe);

/// How a run goes on with another optimizer.lr. spsa.eps and the unit are the log's own:
/// only a new run can have others.
/// @param round  to branch at; 0: none
std::string hint_of_lower_rate(const std::string& other_remedy, uint32_t round);

/// @param log  this machine's, or null
/// @throws UserError behind sixteen rounds in a row without a valid vote: what broke, and from where to go on
void refuse_empty_rounds(const Replica&, Model&, const StepLog* log, int64_t step);

}  // namespace tessera
