#include "infer/prefix_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <memory>

#include "core/error.h"
#include "infer/prefix_batches.h"
#include "support/random_seed.h"

namespace tessera {
namespace {

using test::PromptBatch;
using test::runs;
using test::Tokens;
using testing::ElementsAre;

constexpr PrefixMode kModes[] = {PrefixMode::tree, PrefixMode::level1_exact, PrefixMode::level1_greedy,
                                 PrefixMode::sort, PrefixMode::off};

PrefixTree shared(const PromptBatch& batch, PrefixMode mode, int threads = 1) {
  return shared_tree(batch.prompts(), batch.requests(), mode, threads);
}

int64_t computed(const PromptBatch& batch, PrefixMode mode) { return shared(batch, mode).tokens(); }

/// Each node but the root as begin, end and the requests that end there.
std::vector<std::tuple<int32_t, int32_t, Tokens>> layout(const PrefixTree& tree) {
  std::vector<std::tuple<int32_t, int32_t, Tokens>> all;
  for (size_t v = 1; v < tree.nodes.size(); ++v) {
    const PrefixTree::Node& node = tree.nodes[v];
    all.emplace_back(node.begin, node.end,
                     Tokens(tree.terminals.begin() + node.terminal_begin, tree.terminals.begin() + node.terminal_end));
  }
  return all;
}
using Layout = std::vector<std::tuple<int32_t, int32_t, Tokens>>;

/// The least computed tokens over all partitions of the requests, of which each part shares what all of its prompts
/// begin with: best[S] = min over parts T of S with the first of S of cost(T) + best[S - T].
int64_t best_partition(const PromptBatch& batch) {
  const unsigned all = (1u << batch.size()) - 1;
  std::vector<int64_t> cost(all + 1), best(all + 1, std::numeric_limits<int64_t>::max());
  for (unsigned part = 1; part <= all; ++part) {
    Tokens common;
    int64_t tokens = 0, members = 0;
    for (int32_t i = 0; i < batch.size(); ++i) {
      if (!(part >> i & 1)) continue;
      if (members == 0) common = batch[i];
      common.erase(std::mismatch(common.begin(), common.end(), batch[i].begin(), batch[i].end()).first, common.end());
      tokens += static_cast<int64_t>(batch[i].size());
      ++members;
    }
    cost[part] = tokens - (members - 1) * static_cast<int64_t>(common.size());
  }
  best[0] = 0;
  for (unsigned set = 1; set <= all; ++set)
    for (unsigned part = set; part > 0; part = (part - 1) & set)
      if (part & (set & -set)) best[set] = std::min(best[set], cost[part] + best[set & ~part]);
  return best[all];
}

/// BatchLLM's procedure as it is written down, by recursion.
struct GreedyNode {
  int64_t length;
  std::vector<int64_t> prompts;  // lengths of those that end here
  std::vector<std::shared_ptr<GreedyNode>> children;

  int64_t leaves() const {
    int64_t sum = static_cast<int64_t>(prompts.size());
    for (const auto& child : children) sum += child->leaves();
    return sum;
  }
  int64_t beyond(int64_t shared) const {  // tokens of all prompts behind their first `shared` ones
    int64_t sum = 0;
    for (const int64_t prompt : prompts) sum += prompt - shared;
    for (const auto& child : children) sum += child->beyond(shared);
    return sum;
  }
};

void enlarge(GreedyNode& p) {
  for (const auto& c : std::vector(p.children)) {
    enlarge(*c);
    for (const auto& g : std::vector(c->children)) {
      if ((g->leaves() - 1) * g->length - c->length > 0) {
        g->length += c->length;
        p.children.push_back(g);
        c->children.erase(std::find(c->children.begin(), c->children.end(), g));
      }
      if (c->children.size() == 1 && c->prompts.empty()) {
        const auto child = c->children[0];
        *c = {c->length + child->length, child->prompts, child->children};
        break;
      }
    }
  }
}

int64_t greedy_by_recursion(const PromptBatch& batch) {
  const PrefixTree tree = shared(batch, PrefixMode::tree);
  std::vector<std::shared_ptr<GreedyNode>> nodes;
  for (const PrefixTree::Node& node : tree.nodes) {
    const auto ending = static_cast<size_t>(node.terminal_end - node.terminal_begin);
    nodes.push_back(
        std::make_shared<GreedyNode>(GreedyNode{node.end - node.begin, std::vector<int64_t>(ending, node.end), {}}));
    if (node.parent >= 0) nodes[static_cast<size_t>(node.parent)]->children.push_back(nodes.back());
  }
  enlarge(*nodes[0]);
  int64_t sum = 0;
  for (const auto& group : nodes[0]->children) sum += group->length + group->beyond(group->length);
  return sum;
}

PromptBatch two_headers_of_seven() {
  std::vector<Tokens> prompts;
  for (int32_t i = 0; i < 3; ++i) prompts.push_back(runs({{1, 10}, {2, 6}, {100 + i, 1}}));
  for (int32_t i = 0; i < 3; ++i) prompts.push_back(runs({{1, 10}, {3, 6}, {200 + i, 1}}));
  prompts.push_back(runs({{1, 10}, {4, 1}}));
  return PromptBatch(std::move(prompts));
}

PromptBatch two_headers_of_six() {
  std::vector<Tokens> prompts;
  for (int32_t i = 0; i < 4; ++i) prompts.push_back(runs({{1, 100}, {2, 50}, {9, 1}, {i, 1}}));
  for (int32_t i = 0; i < 2; ++i) prompts.push_back(runs({{1, 100}, {3, 10}, {9, 1}, {i, 1}}));
  return PromptBatch(std::move(prompts));
}

TEST(PrefixGroups, ComputeWhatTheWorkedExamplesSay) {
  const PromptBatch seven = two_headers_of_seven(), six = two_headers_of_six();
  std::vector<int64_t> of_seven, of_six;
  for (const PrefixMode mode : kModes) {
    of_seven.push_back(computed(seven, mode));
    of_six.push_back(computed(six, mode));
  }
  EXPECT_THAT(of_seven, ElementsAre(29, 49, 49, 113, 113));
  EXPECT_THAT(of_six, ElementsAre(168, 268, 268, 832, 832));
}

TEST(PrefixGroups, OfOneLevelHaveTheirMembersRestsBelowThem) {
  for (const PrefixMode mode : {PrefixMode::level1_exact, PrefixMode::level1_greedy})
    EXPECT_EQ(layout(shared(two_headers_of_seven(), mode)), (Layout{{0, 16, {}},
                                                                    {16, 17, {0}},
                                                                    {16, 17, {1}},
                                                                    {16, 17, {2}},
                                                                    {0, 16, {}},
                                                                    {16, 17, {3}},
                                                                    {16, 17, {4}},
                                                                    {16, 17, {5}},
                                                                    {0, 11, {6}}}));
}

TEST(PrefixGroups, OfOneLevelHaveMembersThatEndWithThePrefix) {
  const PromptBatch batch({{1, 1, 1, 2}, {1, 1, 1}, {5}, {1, 1, 1}, {1, 1, 1, 3}});
  for (const PrefixMode mode : {PrefixMode::level1_exact, PrefixMode::level1_greedy})
    EXPECT_EQ(layout(shared(batch, mode)), (Layout{{0, 3, {1, 3}}, {3, 4, {0}}, {3, 4, {4}}, {0, 1, {2}}}));
}

TEST(PrefixGroups, WithoutSharingAreARequestEachInTheirOrder) {
  const PromptBatch batch({{2, 2}, {1}, {2, 2}, {1, 3}});
  EXPECT_EQ(layout(shared(batch, PrefixMode::off)), (Layout{{0, 2, {0}}, {0, 1, {1}}, {0, 2, {2}}, {0, 2, {3}}}));
  EXPECT_EQ(layout(shared(batch, PrefixMode::sort)), (Layout{{0, 1, {1}}, {0, 2, {3}}, {0, 2, {0}}, {0, 2, {2}}}));
  EXPECT_EQ(layout(shared_tree(batch.prompts(), Tokens{3, 0}, PrefixMode::off, 1)), (Layout{{0, 2, {3}}, {0, 2, {0}}}));
}

TEST(PrefixGroups, OfOneLevelAreTheBestPartition) {
  const uint32_t seed = test::random_seed();
  for (uint32_t i = 0; i < 3000; ++i) {
    const PromptBatch batch = test::random_batch(seed + i, 7);
    ASSERT_EQ(computed(batch, PrefixMode::level1_exact), best_partition(batch)) << "batch " << i;
  }
}

TEST(PrefixGroups, SpellEveryPromptOnAtMostTwoLevelsAndComputeLessTheMoreTheyShare) {
  const uint32_t seed = test::random_seed();
  for (uint32_t i = 0; i < 2000; ++i) {
    const PromptBatch batch = i % 2 ? test::random_batch(seed + i, 30) : test::three_levels(seed + i);
    int64_t least = 0;
    for (const PrefixMode mode : kModes) {
      const PrefixTree tree = shared(batch, mode);
      test::expect_sound(tree, batch, batch.requests());
      if (HasFatalFailure()) return;
      ASSERT_LE(least, tree.tokens()) << "batch " << i << ", mode " << static_cast<int>(mode);
      least = tree.tokens();
      for (const PrefixTree::Node& node : tree.nodes)
        if (mode != PrefixMode::tree && node.parent > 0) {
          ASSERT_EQ(tree.nodes[static_cast<size_t>(node.parent)].parent, 0);
        }
    }
    ASSERT_EQ(least, batch.tokens());
  }
}

TEST(PrefixGroups, AreBatchLlmsWhereThoseAreAskedForAndThenSometimesMoreThanNeeded) {
  const uint32_t seed = test::random_seed();
  int worse = 0;
  for (uint32_t i = 0; i < 2000; ++i) {
    const PromptBatch batch = i % 2 ? test::random_batch(seed + i, 30) : test::three_levels(seed + i);
    const int64_t greedy = computed(batch, PrefixMode::level1_greedy);
    ASSERT_EQ(greedy, greedy_by_recursion(batch)) << "batch " << i;
    worse += greedy > computed(batch, PrefixMode::level1_exact);
  }
  EXPECT_GT(worse, 20);
}

TEST(PrefixGroups, AreTheSameForAnyNumberOfThreads) {
  std::vector<Tokens> prompts;
  test::Draws draws(test::random_seed());
  for (int32_t i = 0; i < 2000; ++i)
    prompts.push_back(runs({{1, draws.between(1, 9)}, {draws.below(9), 9}, {i % 99, 1}}));
  const PromptBatch batch(std::move(prompts));
  for (const PrefixMode mode : kModes) {
    const PrefixTree one = shared(batch, mode);
    for (const int threads : {2, 3, 4}) {
      const PrefixTree tree = shared(batch, mode, threads);
      EXPECT_EQ(layout(tree), layout(one));
      EXPECT_EQ(tree.comparisons, one.comparisons);
    }
  }
}

TEST(PrefixGroups, OfNoRequestsAreNone) {
  for (const PrefixMode mode : kModes) EXPECT_EQ(shared_tree({}, {}, mode, 1).nodes.size(), 1u);
}

TEST(PrefixGroups, RefusePromptsWithoutTokens) {
  const PromptBatch batch({{1}, {}});
  for (const PrefixMode mode : kModes) EXPECT_THROW(shared(batch, mode), InternalError);
}

TEST(PrefixGroups, StartWithThoseThatDecodeLongestForTheirPrompts) {
  // Tokens computed: 2 + 1 + 1 below the first, 3, 1 and 2; expected ones a computed one: 3, 1, 8 and 1.
  const PromptBatch batch({{1, 1, 2}, {1, 1, 3}, {4, 4, 4}, {5}, {6, 6}});
  const std::vector<double> expected_new = {4, 8, 3, 8, 2};
  EXPECT_THAT(groups_by_decoding(shared(batch, PrefixMode::tree), expected_new), ElementsAre(5, 1, 4, 6));
  EXPECT_THAT(groups_by_decoding(shared(batch, PrefixMode::off), expected_new), ElementsAre(4, 2, 1, 3, 5));
}

}  // namespace
}  // namespace tessera
