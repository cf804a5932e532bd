#include "train/spsa/loose/round_clock.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "train/spsa/vote_groups.h"

namespace tessera {
namespace {

constexpr size_t kHistory = 16;
constexpr RoundClock::Seconds kShortest{0.1}, kLongestPatience{1};

}  // namespace

void RoundClock::begin(uint32_t round, Clock::time_point now) {
  if (has_begun_ && round == round_) return;
  // Of rounds that went by together, while this machine was away, nothing is learnt.
  if (has_begun_ && round == round_ + 1) lasted_.push_back(lasted(now));
  if (lasted_.size() > kHistory) lasted_.pop_front();
  has_begun_ = true;
  round_ = round;
  begin_anew(now);
}

void RoundClock::begin_anew(Clock::time_point now) {
  begun_ = now;
  present_ = 0;
  is_full_ = false;
}

double RoundClock::lasted(Clock::time_point now) const {
  const Seconds whole = now - begun_, votes = voted_ - begun_;
  if (present_ == 0 || is_full_) return whole.count();
  return (votes > deadline() ? votes : std::min(whole, deadline() / medians_)).count();
}

RoundClock::Seconds RoundClock::deadline() const {
  if (lasted_.empty()) return first_;
  return std::max(kShortest, Seconds(medians_ * lower_median(std::vector<double>(lasted_.begin(), lasted_.end()))));
}

RoundClock::Seconds RoundClock::patience(int64_t place) const {
  return std::min(kLongestPatience, static_cast<double>(place) * deadline() / 10);
}

bool RoundClock::may_pack(Clock::time_point now, int64_t present, int64_t lanes, int64_t place) {
  if (present > present_) {
    present_ = present;
    voted_ = now;
  }
  is_full_ = present >= lanes;
  // From the last vote on: who is first needs a way to the engine and back before it shows that it has packed.
  if (present >= lanes) return (present_ > 0 ? Seconds(now - voted_) : waited(now)) >= patience(place);
  const auto enough = static_cast<int64_t>(std::ceil(quorum_ * static_cast<double>(lanes)));
  const bool is_quorum = present >= std::max<int64_t>(1, enough);
  return waited(now) >= (is_quorum ? 1 : static_cast<double>(absent_limit_)) * deadline() + patience(place);
}

}  // namespace tessera
