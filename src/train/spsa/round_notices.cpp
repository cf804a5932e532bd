// Told to whoever watches a run: signs that its rate is too high (invalid votes) or its probes too short (votes of 0).

#include "train/spsa/round_notices.h"

#include <cmath>

#include "core/error.h"

namespace tessera {
namespace {

constexpr int kManyZeroRounds = 16;

}  // namespace

float rate_of_update(const RoundStats& round, float offered) {
  const float unit = std::ldexp(1.0f, -round.step_unit), n = static_cast<float>(round.counted);
  if (round.counted == 0 || static_cast<double>(-(offered * unit) / n) == round.alpha) return offered;
  return static_cast<float>(-round.alpha * static_cast<double>(n) / static_cast<double>(unit));
}

void RoundNotices::tell(int64_t step, const RoundStats& round, bool is_halved) {
  if (round.valid == 0)
    report_.say(fmt::format("step {}: none of {} votes is valid, the weights stay{}", step, round.votes,
                            is_halved ? "; the learning rate is halved from here on" : ""));
  else if (2 * round.valid < round.votes)
    report_.say(fmt::format("step {}: {} of {} votes invalid; the learning rate is halved from here on", step,
                            round.votes - round.valid, round.votes));
  tell_zero_votes(step, round);
}

// Once for each time that votes stay 0: the two sides of a probe are then too near for their losses to differ.
void RoundNotices::tell_zero_votes(int64_t step, const RoundStats& round) {
  zero_rounds_ = round.valid > 0 && round.vote_rms == 0 ? zero_rounds_ + 1 : 0;
  if (zero_rounds_ == kManyZeroRounds)
    report_.say(fmt::format("step {}: all votes of the last {} rounds are 0, nothing is learned: raise spsa.eps ({:g})",
                            step, zero_rounds_, eps_));
}

}  // namespace tessera
