#pragma once
// What a round did, as the loop of a training tells of a step.

#include <map>

#include "steplog/log_engine.h"
#include "train/spsa/replica.h"
#include "train/stepper.h"

namespace tessera {

struct ReportedRound {
  double loss_of_votes = 0;  // for a log that keeps no losses
  float rate = 0;            // of the schedule, halved as often as it was before the round
  int64_t rows_of_machine = 0, scored_of_machine = 0, dropped = 0;
  LogEngine::Traffic before, now;  // of this machine
};
StepReport report_of(const Replica&, const ReportedRound&);

/// Mean over the votes that tell their loss; NaN, without a sign, where none does.
double mean_loss(const std::map<uint32_t, Vote>& votes);

}  // namespace tessera
