// The schedule alone, without a model: what it computes, how many pages it holds, and that it always comes to its end.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "core/error.h"
#include "infer/schedule_play.h"

namespace tessera {
namespace {

using namespace test;

/// S_trie of requests of one key: the different non-empty prefixes of what is fed.
int64_t trie_tokens(const std::vector<Request>& requests, const BatchPlan& plan) {
  std::set<std::pair<std::string, std::vector<int32_t>>> prefixes;
  for (size_t i = 0; i < requests.size(); ++i)
    for (size_t n = 1; n <= plan.fed[i].size(); ++n)
      prefixes.emplace(requests[i].adapter,
                       std::vector<int32_t>(plan.fed[i].begin(), plan.fed[i].begin() + static_cast<ptrdiff_t>(n)));
  return std::ssize(prefixes);
}

TEST(Schedule, ComputesTheTokensOfTheTrieOnceAndHoldsNoPageBehindThem) {
  for (uint64_t trial = 0; trial < 1000; ++trial) {
    Draws draws(trial);
    const std::vector<Request> requests = random_requests(draws, 20);
    const BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
    Play play(plan, limits(plan, 1'000, 16 + draws.below(60), 1 + draws.below(16)), trial);
    play.run(whole_lengths(plan));
    EXPECT_EQ(play.schedule.counts().computed, trie_tokens(requests, plan)) << trial;
    EXPECT_EQ(play.schedule.counts().computed, plan.tree.tokens());
    EXPECT_EQ(play.schedule.counts().recomputed, 0);
    EXPECT_EQ(play.schedule.pages().pages_in_use(), 0);
    EXPECT_EQ(play.lengths, whole_lengths(plan)) << trial;
  }
}

// Of a batch of prompts alone, all held at once by a step that takes them all.
TEST(Schedule, TakesWholePagesForEachNode) {
  for (uint64_t trial = 0; trial < 200; ++trial) {
    Draws draws(trial);
    std::vector<Request> requests = random_requests(draws, 20);
    for (Request& r : requests) r.max_tokens = 1, r.n = r.best_of = 1, r.beams.width = 1;
    const BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
    Schedule schedule(plan.tree, plan.order, plan.demands, limits(plan, 10'000, 4096, 4096));
    schedule.next();
    int64_t pages = 0;
    for (size_t v = 1; v < plan.tree.nodes.size(); ++v)
      pages += 6 * ((plan.tree.nodes[v].end - plan.tree.nodes[v].begin + kPage - 1) / kPage);
    EXPECT_EQ(schedule.pages().pages_in_use(), pages) << trial;
  }
}

TEST(Schedule, ComesToItsEndInAsFewPagesAsTheLargestRequestTakes) {
  for (uint64_t trial = 0; trial < 1000; ++trial) {
    Draws draws(trial + 5000);
    const std::vector<Request> requests = random_requests(draws, 16);
    const BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
    const int64_t bundles = plan.most_bundles + draws.below(4);
    ScheduleLimits l = limits(plan, bundles, 8 + draws.below(60), 1 + draws.below(8));
    l.reserve = 0.25 * static_cast<double>(draws.below(5));
    l.high_water = draws.below(2) == 0 ? 1 : 0.95;
    Play play(plan, l, trial);
    play.run(whole_lengths(plan));
    EXPECT_EQ(play.lengths, whole_lengths(plan)) << trial;
    EXPECT_EQ(play.schedule.counts().computed, plan.tree.tokens()) << trial;
    EXPECT_EQ(play.schedule.pages().pages_in_use(), 0);
  }
}

// The second prompt holds pages while its only sequence waits: they have to be given back for the first to end.
TEST(Schedule, TakesThePromptsOfThoseThatHaveGivenUpTheirTails) {
  std::vector<Request> requests(2);
  requests[0].prompt.assign(80, 7);
  requests[0].max_tokens = 193;
  requests[1].prompt.assign(80, 9);
  requests[1].max_tokens = 97;
  const BatchPlan plan = plan_batch(requests, PrefixMode::tree, 16, 1 << 20, 1);
  for (const double reserve : {0.5, 0.0}) {
    ScheduleLimits l{.bundles = plan.most_bundles + 3, .pages_per_bundle = 6, .page_tokens = 16, .reserve = reserve};
    Schedule schedule(plan.tree, plan.order, plan.demands, l);
    std::vector<int64_t> lengths(2, 0);
    const auto extend = [&](int32_t s) {
      const Demand& demand = plan.demands[static_cast<size_t>(schedule.request_of(s))];
      ++lengths[static_cast<size_t>(s)] == demand.new_tokens ? schedule.finish(s) : schedule.append(s);
    };
    for (ScheduledStep step = schedule.next(); !step.empty(); step = schedule.next()) {
      for (const Work& w : step.work)
        if (w.sequence >= 0 && w.end - schedule.begin_of(w.sequence) == lengths[static_cast<size_t>(w.sequence)])
          extend(w.sequence);
      for (const int32_t s : step.starts) extend(s);
    }
    EXPECT_EQ(schedule.pages().pages_in_use(), 0);
    EXPECT_GT(schedule.counts().preemptions, 0);
  }
}

// Between one sample's end and the next one's start a request holds its prompt, and nothing of it is under way.
TEST(Schedule, TakesThePromptOfARequestBetweenItsSamples) {
  std::vector<Request> requests = {{.prompt = std::vector<int32_t>(kPage, 1), .max_tokens = 2 * kPage + 1},
                                   {.prompt = std::vector<int32_t>(kPage, 2), .n = 20, .best_of = 20, .max_tokens = 1}};
  BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
  plan.order = {0, 1};
  ScheduleLimits l = limits(plan, plan.most_bundles, 2 * kPage, 2);
  l.reserve = 0;
  l.high_water = 1;
  Play play(plan, l);
  play.run(whole_lengths(plan));
  EXPECT_EQ(play.lengths, whole_lengths(plan));
  EXPECT_EQ(play.schedule.counts().preemptions, 1);
  EXPECT_EQ(play.schedule.counts().recomputed, kPage);
  EXPECT_EQ(play.schedule.pages().pages_in_use(), 0);
}

TEST(Schedule, IsNeverAboveThePagesThatItsPlayTook) {
  for (uint64_t trial = 0; trial < 300; ++trial) {
    Draws draws(trial + 9000);
    const std::vector<Request> requests = random_requests(draws, 20);
    const BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
    ScheduleLimits l = limits(plan, 10'000, 16 + draws.below(60), 1 + draws.below(16));
    l.bundles = play(plan, l).peak_bundles;
    ASSERT_GE(l.bundles, plan.most_bundles);
    std::vector<int64_t> ends;
    for (const int64_t most : whole_lengths(plan)) ends.push_back(1 + draws.below(most));
    Play played(plan, l, trial);
    played.run(ends);
    EXPECT_EQ(played.lengths, ends);
    EXPECT_LE(played.schedule.pages().peak_pages(), 6 * l.bundles);
  }
}

TEST(Schedule, HoldsNoPageBehindCancelledRequests) {
  int64_t cancels = 0, preemptions = 0;
  for (uint64_t trial = 0; trial < 2000; ++trial) {
    Draws draws(trial + 20'000);
    const std::vector<Request> requests = random_requests(draws, 14);
    const BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
    const int64_t bundles = plan.most_bundles + draws.below(6);
    Play play(plan, limits(plan, bundles, 8 + draws.below(40), 1 + draws.below(8)), trial);
    play.run(whole_lengths(plan), [&](Play& p) {
      for (int64_t i = draws.below(2); i > 0; --i, ++cancels)
        p.schedule.cancel(static_cast<int32_t>(draws.below(std::ssize(requests))));
    });
    preemptions += play.schedule.counts().preemptions;
    EXPECT_EQ(play.schedule.pages().pages_in_use(), 0) << trial;
    for (int64_t b = 0; b < bundles; ++b) EXPECT_EQ(play.schedule.pages().free_bundles(), bundles);
  }
  EXPECT_GT(cancels, 10'000);
  EXPECT_GT(preemptions, 200);
}

/// One request of `width` beams behind a prompt of 11 tokens.
std::vector<Request> one_search(int64_t width, int64_t tokens) {
  Request request{.prompt = std::vector<int32_t>(11, 1), .max_tokens = tokens};
  request.beams.width = width;
  return {request};
}

// Beams hold what they have in common once: as many bundles as there are different fronts that end with a bundle. So a
// step takes at most one for each of them.
TEST(Schedule, HoldsWhatBeamsHaveInCommonOnce) {
  for (uint64_t trial = 0; trial < 200; ++trial) {
    const int64_t width = 2 + static_cast<int64_t>(trial % 6), tokens = 2 + static_cast<int64_t>(trial % 60);
    const std::vector<Request> requests = one_search(width, tokens);
    const BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
    const int64_t prompt = bundles_for(11, kPage);
    EXPECT_EQ(plan.most_bundles, prompt + width * bundles_for(tokens - 1, kPage));
    Play play(plan, limits(plan, plan.most_bundles, 16, 1), trial);
    int64_t before = prompt;
    for (ScheduledStep step = play.schedule.next(); !step.empty(); step = play.schedule.next()) {
      const int64_t held = play.schedule.pages().pages_in_use() / 6;
      EXPECT_LE(held - before, width);
      std::set<std::vector<int64_t>> fronts;
      for (int64_t t = 0; t < play.schedule.tails_of(0).count(); ++t) {
        const std::vector<int64_t>& text = play.texts[static_cast<size_t>(t)];
        for (int64_t end = kPage; end < std::ssize(text) + kPage; end += kPage)
          fronts.emplace(text.begin(), text.begin() + std::min(end, std::ssize(text)));
      }
      EXPECT_EQ(held, prompt + std::ssize(fronts));
      before = held;
      play.take(step, {tokens});
    }
    EXPECT_EQ(play.schedule.counts().recomputed, 0);
    EXPECT_EQ(play.schedule.pages().pages_in_use(), 0);
  }
}

TEST(Schedule, FeedsBeamsTogetherOrNotAtAll) {
  std::vector<Request> requests = one_search(5, 30);
  requests.push_back({.prompt = std::vector<int32_t>(30, 2), .max_tokens = 40});
  requests.push_back(requests[0]);
  const BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
  ScheduleLimits l = limits(plan, plan.most_bundles + 4, 16, 16);
  l.reserve = 0;
  Play play(plan, l);
  for (ScheduledStep step = play.schedule.next(); !step.empty(); step = play.schedule.next()) {
    std::map<int32_t, std::set<std::pair<int32_t, int32_t>>> ranges;
    std::map<int32_t, int64_t> tails;
    for (const Work& w : step.work)
      if (w.sequence >= 0) ranges[w.sequence].emplace(w.begin, w.end), ++tails[w.sequence];
    for (const auto& [s, all] : ranges) {
      EXPECT_EQ(all.size(), 1);
      EXPECT_EQ(tails[s], play.schedule.tails_of(s).count());
    }
    play.take(step, whole_lengths(plan));
  }
  EXPECT_GT(play.schedule.counts().preemptions, 0);
  EXPECT_EQ(play.lengths, whole_lengths(plan));
}

TEST(Schedule, RefusesMoreBeamsThanGoTogether) {
  const std::vector<Request> requests = one_search(9, 5);
  const BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
  ScheduleLimits l = limits(plan, 100, 16, 1);
  EXPECT_NO_THROW(Schedule(plan.tree, plan.order, plan.demands, l));
  l.sequences = 8;
  EXPECT_THROW(Schedule(plan.tree, plan.order, plan.demands, l), InternalError);
}

TEST(Schedule, RefusesABatchWithARequestThatNeverFits) {
  const std::vector<Request> requests(1, {.prompt = std::vector<int32_t>(20, 1), .max_tokens = 30});
  const BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
  EXPECT_EQ(plan.most_bundles, 3 + 4);
  EXPECT_NO_THROW(Schedule(plan.tree, plan.order, plan.demands, limits(plan, 7, 8, 8)));
  EXPECT_THROW(Schedule(plan.tree, plan.order, plan.demands, limits(plan, 6, 8, 8)), InternalError);
}

// Against arrival order: groups that decode for long begin early, and keep the passes full to the end.
TEST(Schedule, LeavesFewerHalfEmptyStepsThanArrivalOrder) {
  int64_t few[2] = {}, steps[2] = {};
  for (uint64_t trial = 0; trial < 100; ++trial) {
    Draws draws(trial + 40'000);
    std::vector<Request> requests;
    for (int group = 0; group < 12; ++group) {
      const int64_t prefix = 10 + draws.below(150), members = 1 + draws.below(8), news = 1 + draws.below(100);
      for (int64_t m = 0; m < members; ++m) {
        Request r{.prompt = std::vector<int32_t>(static_cast<size_t>(prefix), group)};
        for (int64_t t = 0; t < 4; ++t) r.prompt.push_back(static_cast<int32_t>(100 + m));
        r.max_tokens = news;
        requests.push_back(r);
      }
    }
    BatchPlan plan = plan_batch(requests, PrefixMode::tree, kPage, 1 << 20, 1);
    const auto half_empty = [&](const std::vector<int32_t>& order) {
      Schedule schedule(plan.tree, order, plan.demands, limits(plan, 200, 64, 32));
      std::vector<int64_t> lengths(static_cast<size_t>(schedule.sequences()), 0);
      int64_t steps = 0, few = 0;
      for (ScheduledStep step = schedule.next(); !step.empty(); step = schedule.next(), ++steps) {
        int64_t rows = 0;
        std::vector<int32_t> grown = step.starts;
        for (const Work& w : step.work) {
          rows += w.end - w.begin;
          if (w.sequence >= 0 && w.end - schedule.begin_of(w.sequence) == lengths[static_cast<size_t>(w.sequence)])
            grown.push_back(w.sequence);
        }
        few += rows < 32;
        for (const int32_t s : grown)
          if (++lengths[static_cast<size_t>(s)] == plan.demands[static_cast<size_t>(schedule.request_of(s))].new_tokens)
            schedule.finish(s);
          else
            schedule.append(s);
      }
      return std::pair(few, steps);
    };
    std::vector<int32_t> arrival(requests.size());
    std::iota(arrival.begin(), arrival.end(), 0);
    const auto [planned, planned_steps] = half_empty(plan.order);
    const auto [first_come, first_come_steps] = half_empty(arrival);
    few[0] += planned, steps[0] += planned_steps;
    few[1] += first_come, steps[1] += first_come_steps;
  }
  EXPECT_LT(few[0], few[1]);
  EXPECT_LE(steps[0], steps[1]);
}

}  // namespace
}  // namespace tessera
