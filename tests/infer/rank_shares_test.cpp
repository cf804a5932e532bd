#include "infer/rank_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "infer/prefix_batches.h"
#include "infer/prefix_groups.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

using test::PromptBatch;
using test::runs;
using test::Tokens;
using testing::ElementsAre;

PrefixTree tree_of(const PromptBatch& batch) { return prefix_tree(batch.prompts(), batch.requests(), 1); }

RankShares shares_of(const PromptBatch& batch, const std::vector<double>& expected_new, double new_token_cost,
                     int ranks) {
  const PrefixTree tree = tree_of(batch);
  return rank_shares({&tree, 1}, expected_new, new_token_cost, ranks);
}

double largest(const std::vector<double>& costs) { return *std::max_element(costs.begin(), costs.end()); }
double sum(const std::vector<double>& costs) { return std::accumulate(costs.begin(), costs.end(), 0.0); }

/// What a rank computes if it plans its requests by itself.
double cost_alone(const PromptBatch& batch, const Tokens& requests, const std::vector<double>& expected_new,
                  double new_token_cost) {
  double cost = static_cast<double>(prefix_tree(batch.prompts(), requests, 1).tokens());
  for (const int32_t request : requests) cost += new_token_cost * expected_new[static_cast<size_t>(request)];
  return cost;
}

/// The least largest cost over all ways to give whole groups to ranks.
double best_largest_cost(const std::vector<double>& groups, std::vector<double> ranks, size_t next = 0) {
  if (next == groups.size()) return largest(ranks);
  double best = std::numeric_limits<double>::infinity();
  for (double& rank : ranks) {
    rank += groups[next];
    best = std::min(best, best_largest_cost(groups, ranks, next + 1));
    rank -= groups[next];
  }
  return best;
}

TEST(RankShares, GiveTheCostliestGroupsAwayFirst) {
  const PromptBatch batch({runs({{1, 3}}), runs({{2, 7}}), runs({{3, 5}}), runs({{4, 6}}), runs({{5, 4}})});
  const RankShares shares = shares_of(batch, std::vector<double>(5), 1, 2);
  EXPECT_THAT(shares.requests, ElementsAre(ElementsAre(0, 1, 4), ElementsAre(2, 3)));
  EXPECT_THAT(shares.cost, ElementsAre(14, 11));
}

TEST(RankShares, WeighNewTokens) {
  const PromptBatch batch({{1, 1, 1, 1}, {2}, {3}});
  EXPECT_THAT(shares_of(batch, {0, 1, 1}, 0, 2).requests, ElementsAre(ElementsAre(0), ElementsAre(1, 2)));
  EXPECT_THAT(shares_of(batch, {0, 3, 1}, 2, 2).requests, ElementsAre(ElementsAre(1), ElementsAre(0, 2)));
}

TEST(RankShares, KeepAGroupTogetherUpToOneAndAHalfMeanShares) {
  // Mean share 20: the first group costs exactly 30.
  std::vector<Tokens> prompts = {runs({{1, 10}, {2, 10}}), runs({{1, 10}, {3, 10}}), runs({{4, 10}})};
  EXPECT_THAT(shares_of(PromptBatch(prompts), {0, 0, 0}, 1, 2).requests,
              ElementsAre(ElementsAre(0, 1), ElementsAre(2)));
  // With one token more it is taken apart, and its ten common tokens are computed twice.
  prompts[1].push_back(3);
  const RankShares shares = shares_of(PromptBatch(prompts), {0, 0, 0}, 1, 2);
  EXPECT_THAT(shares.requests, ElementsAre(ElementsAre(1), ElementsAre(0, 2)));
  EXPECT_THAT(shares.cost, ElementsAre(21, 30));
}

TEST(RankShares, SpreadOneGroupOverAllRanks) {
  std::vector<Tokens> prompts;
  for (int32_t i = 0; i < 64; ++i) prompts.push_back(runs({{1, 100}, {2 + i, 20}}));
  const RankShares shares = shares_of(PromptBatch(std::move(prompts)), std::vector<double>(64), 1, 4);
  for (size_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(shares.requests[rank].size(), 16u);
    EXPECT_EQ(shares.cost[rank], 100 + 16 * 20);
  }
}

TEST(RankShares, SpreadEqualPromptsThatDecodeForLong) {
  const PromptBatch batch(std::vector<Tokens>(8, runs({{1, 10}})));
  const RankShares shares = shares_of(batch, std::vector<double>(8, 100), 1, 4);
  EXPECT_THAT(shares.cost, ElementsAre(210, 210, 210, 210));
  // Whose prompt is what costs stay together.
  EXPECT_THAT(shares_of(batch, std::vector<double>(8, 0.1), 1, 4).requests[0], ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST(RankShares, PreferRanksThatHaveThePrefix) {
  // The first group (53) is above 1.5 · 34 and starts on both ranks, where its third tail costs one token more, not 51.
  const PromptBatch batch({runs({{1, 50}, {2, 1}}), runs({{1, 50}, {3, 1}}), runs({{1, 50}, {4, 1}}), runs({{5, 15}})});
  const RankShares shares = shares_of(batch, std::vector<double>(4), 1, 2);
  EXPECT_THAT(shares.requests, ElementsAre(ElementsAre(0, 2), ElementsAre(1, 3)));
}

TEST(RankShares, HaveEveryRequestOnceAtTheCostThatTheRankWillFind) {
  const uint32_t seed = test::random_seed();
  for (uint32_t i = 0; i < 1000; ++i) {
    const PromptBatch batch = i % 2 ? test::random_batch(seed + i, 30) : test::three_levels(seed + i);
    test::Draws draws(seed + i);
    std::vector<double> expected_new;
    double largest_request = 0, alone = 0;
    for (int32_t r = 0; r < batch.size(); ++r) {
      expected_new.push_back(draws.below(20));
      largest_request = std::max(largest_request, static_cast<double>(batch[r].size()) + 0.5 * expected_new.back());
    }
    const int ranks = draws.between(1, 5);
    alone = cost_alone(batch, {batch.requests().begin(), batch.requests().end()}, expected_new, 0.5);
    const RankShares shares = shares_of(batch, expected_new, 0.5, ranks);
    Tokens all;
    for (size_t rank = 0; rank < static_cast<size_t>(ranks); ++rank) {
      ASSERT_TRUE(std::is_sorted(shares.requests[rank].begin(), shares.requests[rank].end()));
      all.insert(all.end(), shares.requests[rank].begin(), shares.requests[rank].end());
      ASSERT_DOUBLE_EQ(shares.cost[rank], cost_alone(batch, shares.requests[rank], expected_new, 0.5)) << "batch " << i;
    }
    std::sort(all.begin(), all.end());
    ASSERT_TRUE(std::equal(all.begin(), all.end(), batch.requests().begin(), batch.requests().end()));
    // No part costs more than 1.5 shares and what is above it, unless it is one request.
    ASSERT_LE(largest(shares.cost), sum(shares.cost) / ranks + 1.5 * alone / ranks + largest_request + 1e-9);
  }
}

TEST(RankShares, OfWholeGroupsAreWithinGrahamsBoundOfTheBestOnes) {
  const uint32_t seed = test::random_seed();
  int compared = 0;
  for (uint32_t i = 0; i < 400; ++i) {
    test::Draws draws(seed + i);
    std::vector<Tokens> prompts;
    std::vector<double> groups;
    for (int32_t group = draws.between(4, 8); group > 0; --group) {
      prompts.push_back(runs({{group, draws.between(1, 30)}}));
      groups.push_back(static_cast<double>(prompts.back().size()));
    }
    const int ranks = draws.between(2, 3);
    if (largest(groups) > 1.5 * sum(groups) / ranks) continue;
    ++compared;
    const RankShares shares = shares_of(PromptBatch(std::move(prompts)), std::vector<double>(groups.size()), 1, ranks);
    const double best = best_largest_cost(groups, std::vector<double>(static_cast<size_t>(ranks)));
    ASSERT_LE(largest(shares.cost), (4.0 / 3 - 1.0 / (3 * ranks)) * best + 1e-9) << "batch " << i;
  }
  EXPECT_GT(compared, 100);
}

TEST(RankShares, ShareOutTheGroupsOfSeveralKeys) {
  const PromptBatch batch({runs({{1, 8}}), runs({{1, 8}}), runs({{2, 5}}), runs({{2, 5}})});
  const std::vector<PrefixTree> trees = {prefix_tree(batch.prompts(), Tokens{0, 2}, 1),
                                         prefix_tree(batch.prompts(), Tokens{1, 3}, 1)};
  const RankShares shares = rank_shares(trees, std::vector<double>(4), 1, 2);
  EXPECT_THAT(shares.requests, ElementsAre(ElementsAre(0, 2), ElementsAre(1, 3)));
  EXPECT_THAT(shares.cost, ElementsAre(13, 13));
}

TEST(RankShares, MayBeEmpty) {
  const RankShares shares = shares_of(PromptBatch({Tokens{1}}), {0}, 1, 3);
  EXPECT_THAT(shares.requests, ElementsAre(ElementsAre(0), ElementsAre(), ElementsAre()));
  EXPECT_THAT(rank_shares({}, {}, 1, 2).cost, ElementsAre(0, 0));
  EXPECT_THROW(rank_shares({}, {}, 1, 0), InternalError);
}

// Lines of one request and of several, some of which are answered.
TEST(RankShares, OfAFileAreWholeLinesAndCoverWhatIsLeft) {
  RequestFile file;
  std::vector<size_t> left;
  for (size_t line = 0; line < 40; ++line) {
    const size_t count = line % 4 == 1 ? 3 : 1, first = file.requests.size();
    file.lines.push_back({.first = first, .count = count});
    for (size_t i = 0; i < count; ++i) {
      std::vector<int32_t> prompt(20, static_cast<int32_t>(line % 5));
      prompt.push_back(static_cast<int32_t>(10 * line + i));
      file.requests.push_back({.prompt = prompt, .max_tokens = 4 + static_cast<int64_t>(line % 3)});
      if (line % 7 != 3) left.push_back(first + i);
    }
  }
  std::vector<Request> asked;
  for (const size_t i : left) asked.push_back(file.requests[i]);
  const BatchPlan plan = plan_batch(asked, PrefixMode::tree, 16, 64, 1);
  for (const int ranks : {1, 2, 3, 60}) {
    std::vector<size_t> all;
    size_t largest = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const std::vector<size_t> own = share_of_rank(file, left, plan, rank, ranks);
      EXPECT_TRUE(std::ranges::is_sorted(own));
      for (const AskedLine& line : file.lines) {
        const auto has =
            std::ranges::count_if(own, [&](size_t i) { return i >= line.first && i < line.first + line.count; });
        EXPECT_TRUE(has == 0 || has == static_cast<int64_t>(line.count)) << line.first;
      }
      all.insert(all.end(), own.begin(), own.end());
      largest = std::max(largest, own.size());
    }
    std::ranges::sort(all);
    EXPECT_EQ(all, left) << ranks << " ranks";
    if (ranks <= 3) {
      EXPECT_LT(largest, left.size() * 13 / 10 / static_cast<size_t>(ranks) + 3);
    }
  }
}

}  // namespace
}  // namespace tessera
