#pragma once
// What readers of a run are told of its rounds.

#include "train/reporter.h"
#include "train/spsa/replica.h"

namespace tessera {

/// The rate of a round's update: as offered, or, when another machine packed with another, what the record tells of it.
float rate_of_update(const RoundStats&, float offered);

/// Lines about rounds whose votes are invalid, or all 0.
class RoundNotices {
 public:
  /// Both outlive it. @param eps  spsa.eps of the run
  RoundNotices(Reporter& report, double eps) : report_(report), eps_(eps) {}
  /// @param is_halved  the learning rate was, by this round
  void tell(int64_t step, const RoundStats&, bool is_halved);

 private:
  void tell_zero_votes(int64_t step, const RoundStats&);

  Reporter& report_;
  double eps_;
  int zero_rounds_ = 0;  // in a row, as seen by this process
};

}  // namespace tessera
