#include "infer/prefix_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/prefix_batches.h"
#include "infer/prefix_groups.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

using test::PromptBatch;
using test::runs;
using test::Tokens;
using testing::ElementsAre;

PrefixStatistics statistics(const PromptBatch& batch, PrefixMode mode) {
  return prefix_statistics(shared_tree(batch.prompts(), batch.requests(), mode, 1));
}

struct Expected {
  int64_t groups, levels, logical, physical;
  double sharing_degree, prefix_mean, distinct_mean, saving;
};

void expect_statistics(const PrefixStatistics& found, const Expected& expected) {
  EXPECT_EQ(found.groups, expected.groups);
  EXPECT_EQ(found.levels, expected.levels);
  EXPECT_EQ(found.logical, expected.logical);
  EXPECT_EQ(found.physical, expected.physical);
  EXPECT_DOUBLE_EQ(found.sharing_degree(), expected.sharing_degree);
  EXPECT_DOUBLE_EQ(found.prefix_mean(), expected.prefix_mean);
  EXPECT_DOUBLE_EQ(found.distinct_mean(), expected.distinct_mean);
  EXPECT_DOUBLE_EQ(found.saving(), expected.saving);
}

PromptBatch seven_prompts() {
  std::vector<Tokens> prompts;
  for (int32_t i = 0; i < 3; ++i) prompts.push_back(runs({{1, 10}, {2, 6}, {100 + i, 1}}));
  for (int32_t i = 0; i < 3; ++i) prompts.push_back(runs({{1, 10}, {3, 6}, {200 + i, 1}}));
  prompts.push_back(runs({{1, 10}, {4, 1}}));
  return PromptBatch(std::move(prompts));
}

PromptBatch six_prompts() {
  std::vector<Tokens> prompts;
  for (int32_t i = 0; i < 4; ++i) prompts.push_back(runs({{1, 100}, {2, 50}, {9, 1}, {i, 1}}));
  for (int32_t i = 0; i < 2; ++i) prompts.push_back(runs({{1, 100}, {3, 10}, {9, 1}, {i, 1}}));
  return PromptBatch(std::move(prompts));
}

TEST(PrefixStatistics, TellWhatTheWorkedExamplesSave) {
  const PromptBatch seven = seven_prompts(), six = six_prompts();
  expect_statistics(statistics(seven, PrefixMode::tree), {1, 3, 113, 29, 7, 10, 43.0 / 7, 8400.0 / 113});
  // Two groups of three that share sixteen tokens, and a prompt that shares nothing.
  for (const PrefixMode mode : {PrefixMode::level1_exact, PrefixMode::level1_greedy})
    expect_statistics(statistics(seven, mode), {3, 2, 113, 49, 7.0 / 3, 96.0 / 7, 17.0 / 7, 6400.0 / 113});
  expect_statistics(statistics(seven, PrefixMode::off), {7, 1, 113, 113, 1, 0, 113.0 / 7, 0});

  expect_statistics(statistics(six, PrefixMode::tree), {1, 3, 832, 168, 6, 100, 232.0 / 6, 66400.0 / 832});
  for (const PrefixMode mode : {PrefixMode::level1_exact, PrefixMode::level1_greedy})
    expect_statistics(statistics(six, mode), {2, 2, 832, 268, 3, 826.0 / 6, 1, 56400.0 / 832});
  expect_statistics(statistics(six, PrefixMode::sort), {6, 1, 832, 832, 1, 0, 832.0 / 6, 0});
}

TEST(PrefixStatistics, CountComparisonsOfTheSortAlone) {
  const PromptBatch batch({{1, 2, 3}, {1, 2, 4}});
  EXPECT_EQ(statistics(batch, PrefixMode::tree).comparisons, 3);
  EXPECT_EQ(statistics(batch, PrefixMode::level1_exact).comparisons, 3);
  EXPECT_EQ(statistics(batch, PrefixMode::sort).comparisons, 3);
  EXPECT_EQ(statistics(batch, PrefixMode::off).comparisons, 0);
}

TEST(PrefixStatistics, OfSeveralKeysAddUp) {
  PrefixStatistics sum = statistics(seven_prompts(), PrefixMode::tree);
  sum += statistics(PromptBatch({{1, 1}, {1, 1}, {2}}), PrefixMode::tree);
  expect_statistics(sum, {3, 3, 118, 32, 10.0 / 3, 7.4, 4.4, 8600.0 / 118});
  EXPECT_EQ(sum.requests, 10);
}

TEST(PrefixStatistics, OfNothingAreZero) { expect_statistics(PrefixStatistics{}, {0, 0, 0, 0, 0, 0, 0, 0}); }

TEST(CachedTokens, AreTheLongestPrefixSharedWithALowerNumber) {
  const PromptBatch batch({{1, 2, 3}, {1, 2, 4}, {5}, {1, 2}, {1, 2, 4}, {1, 2, 4, 6}, {5, 5}});
  std::vector<int64_t> cached(7);
  cached_tokens(shared_tree(batch.prompts(), batch.requests(), PrefixMode::tree, 1), cached);
  EXPECT_THAT(cached, ElementsAre(0, 2, 0, 2, 3, 3, 1));
}

TEST(CachedTokens, OfTwoKeysTouchOnlyTheirOwnRequests) {
  const PromptBatch batch({{1, 2}, {1, 2}, {1, 3}, {1, 3}});
  std::vector<int64_t> cached(4);
  for (const Tokens& key : {Tokens{0, 3}, Tokens{1, 2}})
    cached_tokens(shared_tree(batch.prompts(), key, PrefixMode::tree, 1), cached);
  EXPECT_THAT(cached, ElementsAre(0, 0, 1, 1));
}

TEST(CachedTokens, LeaveEveryDifferentPrefixToOneRequest) {
  const uint32_t seed = test::random_seed();
  for (uint32_t i = 0; i < 1000; ++i) {
    const PromptBatch batch = test::random_batch(seed + i, 30);
    const PrefixTree tree = shared_tree(batch.prompts(), batch.requests(), PrefixMode::tree, 1);
    std::vector<int64_t> cached(static_cast<size_t>(batch.size()), -1);
    cached_tokens(tree, cached);
    int64_t computed = 0;
    for (int32_t r = 0; r < batch.size(); ++r) {
      int64_t longest = 0;
      for (int32_t lower = 0; lower < r; ++lower) {
        const Tokens &a = batch[r], &b = batch[lower];
        longest = std::max<int64_t>(longest, std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
      }
      ASSERT_EQ(cached[static_cast<size_t>(r)], longest) << "batch " << i << ", request " << r;
      computed += static_cast<int64_t>(batch[r].size()) - longest;
    }
    ASSERT_EQ(computed, tree.tokens());
  }
}

}  // namespace
}  // namespace tessera
