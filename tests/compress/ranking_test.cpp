#include "compress/ranking.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "core/error.h"
#include "core/random.h"

namespace tessera {
namespace {

using Blocks = std::vector<int64_t>;

std::string error_of(const auto& work) {
  try {
    work();
    return "none";
  } catch (const UserError& error) {
    return error.where() + ": " + error.message();
  }
}

TEST(BlocksToRemove, AreThoseOfTheTable) {
  const auto of = [](double rho, int64_t layers) { return blocks_to_remove(rho, layers, {}, "[fold]"); };
  EXPECT_EQ((Blocks{of(0, 12), of(0.125, 12), of(0.25, 12)}), (Blocks{0, 2, 3}));
  EXPECT_EQ((Blocks{of(0, 30), of(0.125, 30), of(0.25, 30)}), (Blocks{0, 4, 8}));
  EXPECT_EQ(of(0.35, 10), 4);  // the double is below 0.35
  EXPECT_EQ(of(0.45, 10), 5);
  EXPECT_EQ(of(0.15, 10), 2);
}

TEST(BlocksToRemove, LeaveMoreThanTheProtectedOnes) {
  const KeyPlaces where("recipe.toml:3:1", {{"remove", "recipe.toml:5:1"}});
  EXPECT_EQ(error_of([&] { blocks_to_remove(0.9, 12, {}, where); }),
            "recipe.toml:5:1: fold: removing 11 of 12 blocks leaves 1; 2 are protected");
  EXPECT_EQ(error_of([&] { blocks_to_remove(0.5, 4, {.head = 1, .tail = 1}, where); }),
            "recipe.toml:5:1: fold: removing 2 of 4 blocks leaves 2; 2 are protected");
  const KeyPlaces typed("recipe.toml:3:1", {{"remove", "recipe.toml:5:1"}, {"gate_remove", "command line"}});
  EXPECT_EQ(error_of([&] { blocks_to_remove(0.9, 12, {}, typed, "gate_remove"); }),
            "command line: fold: removing 11 of 12 blocks leaves 1; 2 are protected");
  EXPECT_EQ(blocks_to_remove(0.25, 4, {.head = 1, .tail = 1}, where), 1);
  EXPECT_EQ(blocks_to_remove(0, 2, {.head = 3, .tail = 3}, where), 0);  // nothing is asked
}

TEST(Orders, ByInfluenceLeaveOutProtectedBlocksAndTakeTheLowerIndexFirst) {
  const std::vector<double> bi = {0, 0.3, 0.1, 0.3, 0.05, 0.1, 0};
  EXPECT_EQ(order_by_influence(bi, {}), (Blocks{4, 2, 5, 1, 3}));
  EXPECT_EQ(order_by_influence(bi, {.head = 0, .tail = 0}), (Blocks{0, 6, 4, 2, 5, 1, 3}));
  EXPECT_EQ(order_by_influence(bi, {.head = 3, .tail = 2}), (Blocks{4, 3}));
  EXPECT_EQ(order_by_influence(bi, {.head = 5, .tail = 5}), Blocks{});
}

TEST(Orders, AtRandomAreTheDrawOfTheSeed) {
  Blocks counts(30);
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const Blocks order = random_order(30, 8, {.head = 2, .tail = 1}, seed);
    const auto drawn = draw_distinct(hash_key({seed, 0x464F4C44}), 27, 8);
    for (size_t i = 0; i < 8; ++i) ASSERT_EQ(order[i], 2 + drawn[i]) << seed;
    for (const int64_t block : order) ++counts[static_cast<size_t>(block)];
  }
  EXPECT_EQ(counts[0] + counts[1] + counts[29], 0);
  for (int64_t block = 2; block < 29; ++block)  // expected 2000 · 8 / 27 = 593, deviation 20
    EXPECT_NEAR(counts[static_cast<size_t>(block)], 593, 100) << block;
}

TEST(Runs, AreThoseOfTheHighestCosine) {
  constexpr int64_t kLayers = 6, kStates = kLayers + 1;
  std::vector<double> similarity(kStates * kStates, 0.5);
  const auto set = [&](int64_t s, int64_t m, double cosine) { similarity[s * kStates + s + m] = cosine; };
  set(0, 2, 0.99);  // of a protected block
  set(4, 2, 0.98);  // the same at the end
  set(2, 2, 0.9);
  set(3, 2, 0.9);
  EXPECT_EQ(most_similar_run(similarity, kLayers, 2, {}), 2);
  EXPECT_EQ(most_similar_run(similarity, kLayers, 2, {.head = 1, .tail = 0}), 4);
  EXPECT_EQ(most_similar_run(similarity, kLayers, 2, {.head = 0, .tail = 0}), 0);
  EXPECT_EQ(most_similar_run(similarity, kLayers, 4, {}), 1);  // the only one
}

TEST(Gates, AreOrderedByGateThenThetaThenInfluence) {
  const std::vector<double> gate = {0, 0.0, 1, 0.0, 0.5, 0.0, 0}, theta = {0, 0.2, 1, 0.1, 0.5, 0.1, 0},
                            bi = {0, 0.1, 0.1, 0.3, 0.1, 0.2, 0};
  const GateOutcome found{.gate = gate, .theta = theta, .bi = bi, .falls = {}};
  EXPECT_EQ(order_by_gates(found, {}), (Blocks{5, 3, 1, 4, 2}));
}

TEST(Gates, OfHalvesTieByTheInfluenceOfTheirBlockThenTheAttentionFirst) {
  const std::vector<double> gate(8, 0.5), theta(8, 0.5), bi = {0, 0.2, 0.1, 0};
  const GateOutcome found{.gate = gate, .theta = theta, .bi = bi, .falls = {}};
  EXPECT_EQ(order_by_gates(found, {}), (Blocks{4, 5, 2, 3}));
}

TEST(Gates, SmallerRatesTakeTheOrderOfTheFalls) {
  const Blocks order = {5, 3, 1, 4, 2};
  // 4 fell and rose again; 3 fell twice, last behind 5; 1 never fell.
  const Blocks falls = {4, 3, 5, 3};
  EXPECT_EQ(order_by_falls(order, 3, falls), (Blocks{5, 3, 1, 4, 2}));
  EXPECT_EQ(order_by_falls(order, 3, Blocks{3, 5}), (Blocks{3, 5, 1, 4, 2}));
  EXPECT_EQ(order_by_falls(order, 0, falls), order);
  // Whatever was logged, the rate that was trained for removes the same blocks.
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    Blocks drawn(12);
    for (int64_t& block : drawn) block = static_cast<int64_t>(1 + random() % 5);
    Blocks smaller = order_by_falls(order, 3, drawn);
    std::sort(smaller.begin(), smaller.begin() + 3);
    EXPECT_EQ(Blocks(smaller.begin(), smaller.begin() + 3), (Blocks{1, 3, 5})) << seed;
  }
}

TEST(Removal, OfBlocksIsAscending) {
  const Removal removal = remove_blocks(Blocks{5, 3, 1, 4}, 3);
  EXPECT_EQ(removal.blocks, (Blocks{1, 3, 5}));
  EXPECT_TRUE(removal.halves.empty());
}

TEST(Removal, OfHalvesComesNearestToTheRate) {
  // 4 blocks of 30 + 70.
  const Blocks parameters = {30, 70, 30, 70, 30, 70, 30, 70};
  const Blocks order = {3, 4, 2, 5};  // mlp 1, attention 2, attention 1, mlp 2
  const auto remove = [&](double rho) { return remove_halves(order, rho, parameters, {}, "[fold]"); };
  EXPECT_TRUE(remove(0).blocks.empty() && remove(0).halves.empty());
  EXPECT_EQ(remove(0.175).halves, (std::vector<RemovedHalf>{{1, BlockHalf::mlp}}));  // 70 of 400, reached exactly
  EXPECT_EQ(remove(0.21).halves, (std::vector<RemovedHalf>{{1, BlockHalf::mlp}}));
  EXPECT_EQ(remove(0.2125).halves, (std::vector<RemovedHalf>{{1, BlockHalf::mlp}, {2, BlockHalf::attention}}));
  EXPECT_TRUE(remove(0.08).halves.empty());
  EXPECT_EQ(remove(0.3).blocks, Blocks{1});
  EXPECT_EQ(remove(0.3).halves, (std::vector<RemovedHalf>{{2, BlockHalf::attention}}));
  EXPECT_EQ(error_of([&] { remove(0.5); }), "[fold]: fold: removing 2 of 4 blocks leaves 2; 2 are protected");
  EXPECT_EQ(error_of([&] { remove(0.6); }),
            "[fold]: fold: removing 0.6 of the blocks' parameters: all that are not protected are 0.5");
}

}  // namespace
}  // namespace tessera
