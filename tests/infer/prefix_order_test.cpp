#include "infer/prefix_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "infer/prefix_batches.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

using test::PromptBatch;
using test::runs;
using test::Tokens;
using testing::ElementsAre;

PrefixOrder sorted(const PromptBatch& batch, int threads = 1) {
  return sort_by_prefix(batch.prompts(), batch.requests(), threads);
}

/// The standard library's sort, and neighbours compared from their first tokens.
PrefixOrder plainly_sorted(const PromptBatch& batch, std::span<const int32_t> requests) {
  PrefixOrder plain{.order = {requests.begin(), requests.end()}, .common = {}};
  std::sort(plain.order.begin(), plain.order.end(),
            [&](int32_t a, int32_t b) { return std::pair(batch[a], a) < std::pair(batch[b], b); });
  for (size_t i = 0; i < plain.order.size(); ++i) {
    const Tokens &a = batch[plain.order[i ? i - 1 : 0]], &b = batch[plain.order[i]];
    const auto parted = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
    plain.common.push_back(i ? static_cast<int32_t>(parted - a.begin()) : 0);
  }
  return plain;
}

/// Each equal pair of tokens found is one of those in `common`; each merged entry ends in at most one unequal pair.
void expect_few_comparisons(const PrefixOrder& order) {
  const auto equal = std::accumulate(order.common.begin(), order.common.end(), int64_t{0});
  const auto requests = static_cast<double>(order.order.size());
  EXPECT_GE(order.comparisons, equal);
  EXPECT_LE(static_cast<double>(order.comparisons), static_cast<double>(equal) + requests * std::log2(requests));
}

TEST(PrefixOrder, PutsPromptsInOrderOfTheirTokensAndBeforeTheirContinuations) {
  const PrefixOrder order = sorted(PromptBatch({{2, 1}, {1, 5, 7}, {1, 5}, {1, 5, 6, 9}, {1, -3}, {1, 5}}));
  EXPECT_THAT(order.order, ElementsAre(4, 2, 5, 3, 1, 0));
  EXPECT_THAT(order.common, ElementsAre(0, 1, 2, 2, 2, 0));
}

TEST(PrefixOrder, CountsPairsOfTokensAndEndsOfPrompts) {
  EXPECT_EQ(sorted(PromptBatch({{1, 2, 3}})).comparisons, 0);
  EXPECT_EQ(sorted(PromptBatch({{1, 2, 3}, {1, 2, 4}})).comparisons, 3);
  EXPECT_EQ(sorted(PromptBatch({{1, 2, 3}, {1, 2}})).comparisons, 3);
  EXPECT_EQ(sorted(PromptBatch({{1, 2, 3}, {1, 2, 3}})).comparisons, 4);
  // 1 2 | 1 3 and 1 2 | 2 take two and one; then 1 2 | 1 2 takes three with both ends. The others differ in how much
  // they share with it, and need none.
  EXPECT_EQ(sorted(PromptBatch({{1, 2}, {1, 3}, {1, 2}, {2}})).comparisons, 2 + 1 + 3);
}

TEST(PrefixOrder, EqualsAPlainSortWithFewComparisons) {
  const uint32_t seed = test::random_seed();
  for (uint32_t i = 0; i < 2000; ++i) {
    const PromptBatch batch = test::random_batch(seed + i, 40);
    const PrefixOrder order = sorted(batch), plain = plainly_sorted(batch, batch.requests());
    ASSERT_EQ(order.order, plain.order) << "batch " << i;
    ASSERT_EQ(order.common, plain.common) << "batch " << i;
    expect_few_comparisons(order);
  }
}

TEST(PrefixOrder, IsTheSameForAnyNumberOfThreads) {
  std::vector<Tokens> prompts;
  test::Draws draws(test::random_seed());
  for (int32_t i = 0; i < 5000; ++i)
    prompts.push_back(runs({{1, draws.between(1, 20)}, {draws.below(3), draws.between(0, 20)}, {draws.below(9), 1}}));
  const PromptBatch batch(std::move(prompts));
  const PrefixOrder one = sorted(batch);
  expect_few_comparisons(one);
  for (const int threads : {2, 3, 4}) {
    const PrefixOrder order = sorted(batch, threads);
    EXPECT_EQ(order.order, one.order);
    EXPECT_EQ(order.common, one.common);
    EXPECT_EQ(order.comparisons, one.comparisons);
  }
}

TEST(PrefixOrder, TakesSomeOfTheRequestsInAnyOrder) {
  const PromptBatch batch({{3}, {}, {1, 2}, {2}, {1, 2}, {1}});
  const PrefixOrder order = sort_by_prefix(batch.prompts(), Tokens{4, 0, 5, 2}, 2);
  EXPECT_THAT(order.order, ElementsAre(5, 2, 4, 0));
  EXPECT_THAT(order.common, ElementsAre(0, 1, 2, 0));
}

TEST(PrefixOrder, SortsAHundredThousandShortPrompts) {
  for (const int32_t alphabet : {2, 50}) {
    test::Draws draws(static_cast<uint64_t>(alphabet));
    std::vector<Tokens> prompts(100000, Tokens(10));
    for (Tokens& prompt : prompts)
      for (int32_t& token : prompt) token = draws.below(alphabet);
    const PromptBatch batch(std::move(prompts));
    const PrefixOrder order = sorted(batch, 2), plain = plainly_sorted(batch, batch.requests());
    EXPECT_EQ(order.order, plain.order);
    EXPECT_EQ(order.common, plain.common);
    expect_few_comparisons(order);
  }
}

TEST(PrefixOrder, OfNoRequestsIsEmpty) {
  const PrefixOrder order = sort_by_prefix({}, {}, 2);
  EXPECT_TRUE(order.order.empty());
  EXPECT_EQ(order.comparisons, 0);
}

TEST(PrefixOrder, RefusesRequestsWithoutPromptsAndPromptsWithoutTokens) {
  const PromptBatch batch({{1}, {}});
  for (const int32_t request : {-1, 1, 2})
    EXPECT_THROW(sort_by_prefix(batch.prompts(), Tokens{0, request}, 1), InternalError) << request;
}

}  // namespace
}  // namespace tessera
