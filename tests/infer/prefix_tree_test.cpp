#include "infer/prefix_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/prefix_batches.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

using test::PromptBatch;
using test::Tokens;
using testing::ElementsAre;

PrefixTree tree_of(const PromptBatch& batch, int threads = 1) {
  return prefix_tree(batch.prompts(), batch.requests(), threads);
}

std::vector<std::pair<int32_t, int32_t>> node_runs(const PrefixTree& tree) {
  std::vector<std::pair<int32_t, int32_t>> all;
  for (const PrefixTree::Node& node : tree.nodes) all.emplace_back(node.begin, node.end);
  return all;
}

using Runs = std::vector<std::pair<int32_t, int32_t>>;

/// No two siblings begin alike, and where nothing ends and nothing parts there is no border.
void expect_every_common_prefix_is_shared(const PrefixTree& tree, const PromptBatch& batch) {
  std::vector<std::set<int32_t>> first_tokens(tree.nodes.size());
  for (size_t v = 1; v < tree.nodes.size(); ++v) {
    const PrefixTree::Node& node = tree.nodes[v];
    auto& siblings = first_tokens[static_cast<size_t>(node.parent)];
    ASSERT_TRUE(siblings.insert(batch[node.request][static_cast<size_t>(node.begin)]).second);
  }
  for (size_t v = 1; v < tree.nodes.size(); ++v)
    ASSERT_TRUE(first_tokens[v].size() > 1 || tree.nodes[v].terminal_begin < tree.nodes[v].terminal_end);
}

TEST(PrefixTree, HasANodeWhereverPromptsPartOrEnd) {
  const PromptBatch batch({{1, 2, 3, 4}, {1, 2, 5}, {7}, {1, 2, 3}, {1, 2, 5}});
  const PrefixTree tree = tree_of(batch);
  EXPECT_EQ(node_runs(tree), (Runs{{0, 0}, {0, 2}, {2, 3}, {3, 4}, {2, 3}, {0, 1}}));
  EXPECT_THAT(tree.terminals, ElementsAre(3, 0, 1, 4, 2));
  EXPECT_EQ(tree.tokens(), 6);
  std::vector<int32_t> parents, leaves, subtree_ends;
  for (const PrefixTree::Node& node : tree.nodes) {
    parents.push_back(node.parent);
    leaves.push_back(node.leaves);
    subtree_ends.push_back(node.subtree_end);
  }
  EXPECT_THAT(parents, ElementsAre(-1, 0, 1, 2, 1, 0));
  EXPECT_THAT(leaves, ElementsAre(5, 4, 2, 1, 2, 1));
  EXPECT_THAT(subtree_ends, ElementsAre(6, 5, 4, 4, 5, 6));
}

TEST(PrefixTree, OfOnePromptIsOneRun) {
  const PrefixTree tree = tree_of(PromptBatch({{5, 5, 5}}));
  EXPECT_EQ(node_runs(tree), (Runs{{0, 0}, {0, 3}}));
  EXPECT_EQ(tree.comparisons, 0);
}

TEST(PrefixTree, OfEqualPromptsIsOneRunAtWhichAllEnd) {
  const PrefixTree tree = tree_of(PromptBatch(std::vector<Tokens>(7, Tokens{4, 2})));
  EXPECT_EQ(node_runs(tree), (Runs{{0, 0}, {0, 2}}));
  EXPECT_THAT(tree.terminals, ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_EQ(tree.nodes[1].leaves, 7);
}

TEST(PrefixTree, OfDisjointPromptsIsARunEach) {
  const PrefixTree tree = tree_of(PromptBatch({{3, 1}, {1, 1, 1}, {2}}));
  EXPECT_EQ(node_runs(tree), (Runs{{0, 0}, {0, 3}, {0, 1}, {0, 2}}));
  EXPECT_THAT(tree.terminals, ElementsAre(1, 2, 0));
}

TEST(PrefixTree, OfGrowingPromptsIsAChain) {
  const PrefixTree tree = tree_of(PromptBatch({{1, 1, 1, 1, 1}, {1}, {1, 1, 1}}));
  EXPECT_EQ(node_runs(tree), (Runs{{0, 0}, {0, 1}, {1, 3}, {3, 5}}));
  EXPECT_THAT(tree.terminals, ElementsAre(1, 2, 0));
  EXPECT_EQ(tree.nodes[3].parent, 2);
}

TEST(PrefixTree, OfNoRequestsIsTheRoot) {
  const PrefixTree tree = prefix_tree({}, {}, 2);
  ASSERT_EQ(tree.nodes.size(), 1u);
  EXPECT_EQ(tree.nodes[0].subtree_end, 1);
  EXPECT_EQ(tree.tokens(), 0);
}

TEST(PrefixTree, ComputesEveryDifferentPrefixOnceAndHasNoNodeTooMany) {
  const uint32_t seed = test::random_seed();
  for (uint32_t i = 0; i < 1000; ++i) {
    const PromptBatch batch = test::random_batch(seed + i, 30);
    const PrefixTree tree = tree_of(batch);
    ASSERT_EQ(tree.tokens(), test::count_prefixes(batch, batch.requests())) << "batch " << i;
    test::expect_sound(tree, batch, batch.requests());
    expect_every_common_prefix_is_shared(tree, batch);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(PrefixTree, IsOfTheGivenRequestsAlone) {
  const uint32_t seed = test::random_seed();
  for (uint32_t i = 0; i < 200; ++i) {
    const PromptBatch batch = test::random_batch(seed + i, 30);
    Tokens odd;
    for (int32_t request = 1; request < batch.size(); request += 2) odd.push_back(request);
    const PrefixTree tree = prefix_tree(batch.prompts(), odd, 1);
    ASSERT_EQ(tree.tokens(), test::count_prefixes(batch, odd));
    test::expect_sound(tree, batch, odd);
    std::reverse(odd.begin(), odd.end());
    ASSERT_EQ(prefix_tree(batch.prompts(), odd, 1).terminals, tree.terminals);
  }
}

TEST(PrefixTree, IsTheSameForAnyNumberOfThreads) {
  std::vector<Tokens> prompts;
  test::Draws draws(test::random_seed());
  for (int32_t i = 0; i < 3000; ++i) prompts.push_back(test::runs({{1, draws.between(1, 40)}, {draws.below(40), 3}}));
  const PromptBatch batch(std::move(prompts));
  const PrefixTree one = tree_of(batch);
  for (const int threads : {2, 3, 4}) {
    const PrefixTree tree = tree_of(batch, threads);
    EXPECT_EQ(node_runs(tree), node_runs(one));
    EXPECT_EQ(tree.terminals, one.terminals);
    EXPECT_EQ(tree.comparisons, one.comparisons);
  }
}

TEST(PrefixTree, OfAHundredThousandShortPromptsHasAtMostTwoNodesAPrompt) {
  test::Draws draws(3);
  std::vector<Tokens> prompts(100000, Tokens(10));
  for (Tokens& prompt : prompts)
    for (int32_t& token : prompt) token = draws.below(6);
  const PromptBatch batch(std::move(prompts));
  const PrefixTree tree = tree_of(batch, 2);
  test::expect_sound(tree, batch, batch.requests());
  EXPECT_LE(tree.nodes.size(), 200000u);
}

TEST(PrefixTree, MayBeAsDeepAsItHasPrompts) {
  std::vector<Tokens> prompts;
  for (size_t n = 1; n <= 3000; ++n) prompts.emplace_back(n, 1);
  const PromptBatch batch(std::move(prompts));
  const PrefixTree tree = tree_of(batch, 2);
  EXPECT_EQ(tree.tokens(), 3000);
  EXPECT_EQ(tree.nodes.back().parent, 2999);
}

}  // namespace
}  // namespace tessera
