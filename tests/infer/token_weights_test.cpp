// Prompts that are computed with adapters, from a token on: what they share.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "infer/prefix_batches.h"
#include "infer/prefix_groups.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;
using Weights = std::vector<TokenWeights>;
using Symbols = std::vector<std::pair<int32_t, int32_t>>;  // of each token: the adapter's number, and its id

Symbols symbols_of(const Tokens& prompt, const TokenWeights& weights) {
  Symbols symbols;
  for (size_t i = 0; i < prompt.size(); ++i) symbols.emplace_back(weights.at(static_cast<int32_t>(i)), prompt[i]);
  return symbols;
}

Weights random_weights(const PromptBatch& batch, uint64_t seed) {
  Draws draws(hash_key({0x77, seed}));
  Weights weights;
  for (int32_t r = 0; r < batch.size(); ++r) {
    const int32_t adapter = draws.below(4);
    weights.push_back({adapter, draws.below(3) == 0 ? 0 : draws.between(0, static_cast<int32_t>(batch[r].size()))});
  }
  return weights;
}

TEST(TokenWeights, PartWhereTheFirstOfTwoDifferentAdaptersBegins) {
  const TokenWeights base{}, law{1, 5}, later{1, 8}, tax{2, 7}, whole{2, 0};
  EXPECT_EQ(base.parts_from({0, 3}), INT32_MAX);
  EXPECT_EQ(law.parts_from(law), INT32_MAX);
  EXPECT_EQ(law.parts_from(base), 5);
  EXPECT_EQ(base.parts_from(law), 5);
  EXPECT_EQ(law.parts_from(later), 5);
  EXPECT_EQ(tax.parts_from(later), 7);
  EXPECT_EQ(whole.parts_from(law), 0);
}

TEST(TokenWeights, OrderAndCommonPrefixesAreThoseOfTokensWithTheirWeights) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const PromptBatch batch = random_batch(seed, 40);
    const Weights weights = random_weights(batch, seed);
    const PrefixOrder got = sort_by_prefix(batch.prompts(), batch.requests(), 1, weights);
    std::vector<Symbols> all;
    for (int32_t r = 0; r < batch.size(); ++r) all.push_back(symbols_of(batch[r], weights[static_cast<size_t>(r)]));
    std::vector<int32_t> order(batch.requests().begin(), batch.requests().end());
    const auto at = [&](int32_t r) -> const Symbols& { return all[static_cast<size_t>(r)]; };
    std::sort(order.begin(), order.end(),
              [&](int32_t a, int32_t b) { return std::tie(at(a), a) < std::tie(at(b), b); });
    ASSERT_EQ(got.order, order) << seed;
    int64_t equal = 0;
    for (size_t i = 1; i < order.size(); ++i) {
      const Symbols &a = at(order[i - 1]), &b = at(order[i]);
      ASSERT_EQ(got.common[i], std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin()) << seed;
      equal += got.common[i];
    }
    const auto requests = static_cast<double>(batch.size());
    EXPECT_LE(static_cast<double>(got.comparisons), static_cast<double>(equal) + requests * std::log2(requests));
  }
}

TEST(TokenWeights, TreesComputeEachPrefixOnceWithEachOfItsWeights) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const PromptBatch batch = random_batch(seed, 24);
    const Weights weights = random_weights(batch, seed);
    std::set<Symbols> prefixes;
    for (int32_t r = 0; r < batch.size(); ++r) {
      const Symbols symbols = symbols_of(batch[r], weights[static_cast<size_t>(r)]);
      for (size_t n = 1; n <= symbols.size(); ++n)
        prefixes.emplace(symbols.begin(), symbols.begin() + static_cast<ptrdiff_t>(n));
    }
    int64_t more = 0;
    for (const PrefixMode mode :
         {PrefixMode::tree, PrefixMode::level1_exact, PrefixMode::level1_greedy, PrefixMode::sort}) {
      const PrefixTree tree = shared_tree(batch.prompts(), batch.requests(), mode, 1, weights);
      expect_sound(tree, batch, batch.requests());
      if (mode == PrefixMode::tree) {
        ASSERT_EQ(tree.tokens(), std::ssize(prefixes)) << seed;
      }
      EXPECT_GE(tree.tokens(), more) << seed;
      more = tree.tokens();
      // What a node holds is the same for all below it, weights included.
      for (size_t v = 1; v < tree.nodes.size(); ++v) {
        const PrefixTree::Node& node = tree.nodes[v];
        for (int32_t t = node.terminal_begin; t < node.terminal_begin + node.leaves; ++t)
          for (int32_t position = node.begin; position < node.end; ++position)
            ASSERT_EQ(weights[static_cast<size_t>(tree.terminals[static_cast<size_t>(t)])].at(position),
                      weights[static_cast<size_t>(node.request)].at(position));
      }
    }
  }
}

TEST(TokenWeights, SharesExactlyWhatIsComputedWithTheBase) {
  const Tokens header = runs({{7, 20}});
  const PromptBatch batch({header, header, header, header, header});
  // The base; two adapters from 12 and 15; the first again from 12, and from 20: on new tokens alone.
  const Weights weights = {{0, 0}, {1, 12}, {2, 15}, {1, 12}, {1, 20}};
  const PrefixTree tree = prefix_tree(batch.prompts(), batch.requests(), 1, weights);
  // 0..12 base | 12..15 base, first adapter | 15..20 base, second adapter
  EXPECT_EQ(tree.tokens(), 12 + (3 + 8) + (5 + 5));
  EXPECT_THAT(tree.terminals, ElementsAre(0, 4, 2, 1, 3));
}

}  // namespace
}  // namespace tessera
