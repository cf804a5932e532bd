#pragma once
// How much of the machine a training uses: its products by what the machine multiplies at best.

#include <optional>
#include <string>

#include "train/trainer_inputs.h"

namespace tessera {

/// The limit is measured once, behind the first step, by products of half a second on all threads of all ranks at the
/// same time (limit_rate) — where that is at most a fiftieth of the time that the steps still take. Of shorter runs, of
/// losses of their own, and of trainings in which machines take part that are no ranks of this job, nothing is told.
class MachineShare {
 public:
  /// The inputs outlive it.
  explicit MachineShare(const TrainerInputs& in) : in_(in) {}

  /// Behind each step; a collective behind the first. @return what to say of the measurement, when there was one
  std::string look(double step_seconds, int64_t steps_left);
  /// Of the limit: what `rows` needed (RowWork, by the passes that the estimator takes), done in this time.
  std::optional<double> of(int64_t rows, double seconds) const;
  /// FLOP a second of all ranks; 0: not measured.
  double limit() const { return limit_; }

 private:
  const TrainerInputs& in_;
  bool has_looked_ = false;
  double limit_ = 0, row_flop_ = 0;
};

}  // namespace tessera
