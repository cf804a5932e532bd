// No page is held behind a batch, however it was interrupted: pages that nobody gives back would end a long one.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "infer/schedule_play.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

using namespace test;

/// What interrupted sequences of some batches: their requests were cancelled, they gave up their tails, or they stopped
/// before they had all their tokens.
struct Interruptions {
  int64_t cancels = 0, preemptions = 0, stops = 0;
  int64_t least() const { return std::min({cancels, preemptions, stops}); }
};

/// Plays a batch whose pages are few, with requests that are cancelled at random, between steps and within them.
class InterruptedBatch {
 public:
  explicit InterruptedBatch(uint64_t trial)
      : draws_(trial + 60'000),
        requests_(random_requests(draws_, 14)),
        plan_(plan_batch(requests_, PrefixMode::tree, kPage, 1 << 20, 1)),
        play_(plan_, few_pages(), trial),
        ends_(whole_lengths(plan_)) {
    for (int64_t& end : ends_)
      if (draws_.below(3) > 0) end = 1 + draws_.below(end);
    play_.computed = [this] { cancel_some(); };
  }

  /// @param all       counts what happens, of every sequence
  /// @param searches  of those that are searched by beams
  void run(Interruptions& all, Interruptions& searches) {
    const Schedule& schedule = play_.schedule;
    for (int64_t step = 0;; ++step) {
      ASSERT_LT(step, 100'000);
      const std::vector<int32_t> before(schedule.live().begin(), schedule.live().end());
      const ScheduledStep next = play_.schedule.next();
      for (const int32_t s : before)
        if (!schedule.is_live(s)) ++preemptions_[is_search(s)];
      if (next.empty()) break;
      play_.take(next, ends_);
      play_.expect_accounted();
      cancel_some();
      play_.expect_accounted();
    }
    const PagePool& pages = schedule.pages();
    EXPECT_EQ(pages.pages_in_use(), 0);
    EXPECT_EQ(pages.free_bundles(), pages.bundles());
    count(all, searches);
  }

 private:
  ScheduleLimits few_pages() {
    ScheduleLimits l = limits(plan_, plan_.most_bundles + draws_.below(4), 16 + draws_.below(40), 4 + draws_.below(8));
    l.reserve = 0;
    l.high_water = 1;
    return l;
  }
  bool is_search(int32_t s) const { return plan_.demands[static_cast<size_t>(play_.schedule.request_of(s))].width > 1; }
  void cancel_some() {
    if (draws_.below(12) > 0) return;
    const auto r = static_cast<int32_t>(draws_.below(std::ssize(plan_.demands)));
    const int32_t first = play_.schedule.first_sequence(r);
    for (int32_t s = first; s < first + plan_.demands[static_cast<size_t>(r)].samples; ++s)
      if (play_.schedule.is_open(s)) ++cancels_[is_search(s)];
    play_.schedule.cancel(r);
  }
  void count(Interruptions& all, Interruptions& searches) const {
    const std::vector<int64_t> whole = whole_lengths(plan_);
    std::array<int64_t, 2> stops{};
    for (int32_t s = 0; s < play_.schedule.sequences(); ++s) {
      const auto at = static_cast<size_t>(s);
      stops[is_search(s)] += play_.lengths[at] == ends_[at] && ends_[at] < whole[at];
    }
    const auto add = [&](Interruptions& to, size_t kind) {
      to.cancels += cancels_[kind], to.preemptions += preemptions_[kind], to.stops += stops[kind];
    };
    for (const size_t kind : {0, 1}) add(all, kind);
    add(searches, 1);
  }

  Draws draws_;
  std::vector<Request> requests_;
  BatchPlan plan_;
  Play play_;
  std::vector<int64_t> ends_;
  std::array<int64_t, 2> cancels_{}, preemptions_{};  // of sequences that draw, and of searches
};

// 10,000 of each kind, a thousand of them unless the tests are long; a tenth of them in searches by beams.
TEST(Schedule, HoldsNoPageBehindCancelsPreemptionsAndStops) {
  const int64_t wanted = tests_are_long() ? 10'000 : 1'000;
  Interruptions all, searches;
  for (uint64_t trial = 0; all.least() < wanted || searches.least() < wanted / 10; ++trial) {
    SCOPED_TRACE(trial);
    ASSERT_LT(trial, 100'000);
    ASSERT_NO_FATAL_FAILURE(InterruptedBatch(trial).run(all, searches));
    ASSERT_FALSE(HasFailure());
  }
}

}  // namespace
}  // namespace tessera
