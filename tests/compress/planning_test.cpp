#include "compress/planning.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "model/fold/plan_check.h"
#include "support/fold_plans.h"

namespace tessera {
namespace {

using Groups = std::vector<std::vector<int64_t>>;

/// SmolLM2 without four blocks: R = 26, of which 23 are in the middle.
FoldPlan removed_plan() {
  FoldPlan plan;
  plan.base = {.fingerprint = {}, .layers = 30, .model_type = "llama"};
  plan.removed = {5, 11, 17, 23};
  return plan;
}

double distance(int64_t child, int64_t parent) { return std::abs(static_cast<double>(child - parent)); }

Groups blocks_of(const FoldPlan& plan) {
  Groups groups;
  for (const FoldGroup& group : plan.groups) groups.push_back(group.blocks);
  return groups;
}

std::string error_of(const auto& work) {
  try {
    work();
    return "none";
  } catch (const UserError& error) {
    return error.message() + " | " + error.hint();
  }
}

class PlanningTest : public testing::Test {
 protected:
  Grouping plan(const GroupingOptions& options, const PairDelta& delta = distance) {
    Grouping grouping = plan_groups(removed, options, shapes, delta, "[fold]");
    EXPECT_EQ(fault_of(grouping.plan), std::nullopt) << fault_of(grouping.plan)->what;
    require_equal_shapes(grouping.plan, shapes, "plan");
    return grouping;
  }
  ModelShapes shapes = test::smollm2_shapes();
  FoldPlan removed = removed_plan();
};

TEST_F(PlanningTest, OfFixedRunsLeavesTheLastShorter) {
  const FoldPlan found = plan({.method = PlanningMethod::fixed, .group = 4}).plan;
  EXPECT_EQ(blocks_of(found), (Groups{{0},
                                      {1},
                                      {2, 3, 4, 6},
                                      {7, 8, 9, 10},
                                      {12, 13, 14, 15},
                                      {16, 18, 19, 20},
                                      {21, 22, 24, 25},
                                      {26, 27, 28},
                                      {29}}));
  EXPECT_EQ(found.groups[2].parent, 3);  // 3 and 4 are as near to the others; the first of them
  EXPECT_EQ(found.groups[7].parent, 27);
}

TEST_F(PlanningTest, ByCostPairsTheNearestNeighbours) {
  // Copies: 2 of 3, 8 of 9, 20 of 21; all others are far from one another. Pairs of copies are found before any other.
  const std::set<int64_t> copies = {3, 9, 21};
  const PairDelta delta = [&](int64_t child, int64_t parent) {
    return std::abs(child - parent) == 1 && copies.contains(std::max(child, parent)) ? 0.0
                                                                                     : 1000 + distance(child, parent);
  };
  const Grouping found = plan({.groups = 20}, delta);
  std::vector<std::vector<int64_t>> pairs;
  for (const FoldGroup& group : found.plan.groups)
    if (group.blocks.size() == 2) pairs.push_back(group.blocks);
  EXPECT_EQ(pairs, (Groups{{2, 3}, {8, 9}, {20, 21}}));
  EXPECT_EQ(found.cost, 0);
}

TEST_F(PlanningTest, AsksForEachPairOnceAndForNoneThatCannotShare) {
  std::set<std::pair<int64_t, int64_t>> asked;
  const Grouping found = plan({.group = 3}, [&](int64_t child, int64_t parent) {
    EXPECT_TRUE(asked.insert({child, parent}).second) << child << " " << parent;
    return distance(child, parent);
  });
  // 23 middle blocks: 22 neighbours and 21 at two places, both ways.
  EXPECT_EQ(asked.size(), 2u * (22 + 21));
  ASSERT_EQ(found.deltas.size(), asked.size());
  for (const MeasuredDelta& delta : found.deltas) EXPECT_EQ(delta.delta, distance(delta.child, delta.parent));
}

TEST_F(PlanningTest, TakesTheParentThatTheOptionNames) {
  const GroupingOptions options{.method = PlanningMethod::fixed, .group = 3};
  const auto of = [&](ParentChoice parent) {
    GroupingOptions with = options;
    with.parent = parent;
    return plan(with).plan.groups[2];
  };
  EXPECT_EQ(of(ParentChoice::medoid), (FoldGroup{{2, 3, 4}, 3, GroupValues::own}));
  EXPECT_EQ(of(ParentChoice::first), (FoldGroup{{2, 3, 4}, 2, GroupValues::own}));
  EXPECT_EQ(of(ParentChoice::mean), (FoldGroup{{2, 3, 4}, std::nullopt, GroupValues::mean}));
  EXPECT_EQ(of(ParentChoice::wmean), (FoldGroup{{2, 3, 4}, std::nullopt, GroupValues::wmean}));
}

TEST_F(PlanningTest, MeetsTheTargetOfTheWorkedExample) {
  const Grouping found = plan({.target = 0.66, .remove = 0.125});
  EXPECT_EQ(found.plan.groups.size(), 17u);  // 14 of the middle blocks
  EXPECT_EQ(stored_parameters(found.plan, shapes), 88504128);
  EXPECT_EQ(plan({.target = 2.0 / 3}).plan.groups.size(), 17u);
  EXPECT_EQ(plan({.target = 1}).plan.groups.size(), 26u);  // nothing needs to share
}

TEST_F(PlanningTest, TakesTheMostGroupsThatATargetAllows) {
  for (const int64_t group : {2, 3, 5})
    for (double target = 0.35; target < 0.9; target += 0.0173) {
      const GroupingOptions options{.group = group, .target = target};
      const auto allowed = static_cast<int64_t>(std::floor(target * 134515008));
      const int64_t least = (23 + group - 1) / group;
      int64_t most = 0;
      for (int64_t groups = least; groups <= 23; ++groups)
        if (stored_parameters(plan({.group = group, .groups = groups}).plan, shapes) <= allowed) most = groups;
      if (most == 0)
        EXPECT_NE(error_of([&] { plan(options); }), "none") << group << " " << target;
      else
        EXPECT_EQ(static_cast<int64_t>(plan(options).plan.groups.size()), most + 3) << group << " " << target;
    }
}

TEST_F(PlanningTest, TellsTheLeastTargetAndThatOneCanBeMet) {
  const GroupingOptions options{.target = 0.3, .remove = 0.125};
  EXPECT_EQ(error_of([&] { plan(options); }),
            "fold: a target of 0.3 cannot be met: 0.606 is the least with fold.remove = 0.125, fold.group = 2 | "
            "raise fold.target, fold.remove or fold.group");
  EXPECT_EQ(plan({.target = 0.606}).plan.groups.size(), 15u);
  EXPECT_NE(error_of([&] { plan({.target = 0.605}); }), "none");
  EXPECT_NE(error_of([&] { plan({.method = PlanningMethod::fixed, .target = 0.605}); }), "none");
  EXPECT_NE(error_of([&] { plan({.groups = 20, .target = 0.66}); }), "none");
}

TEST_F(PlanningTest, RefusesNumbersOfGroupsThatCannotBe) {
  EXPECT_EQ(error_of([&] { plan({.groups = 8}); }),
            "fold: 23 blocks in runs of at most 2 are 12 to 23 groups, not 8 | change fold.groups or fold.group");
  EXPECT_EQ(error_of([&] { plan({.groups = 24}); }),
            "fold: 23 blocks in runs of at most 2 are 12 to 23 groups, not 24 | change fold.groups or fold.group");
  EXPECT_EQ(error_of([&] { plan({.method = PlanningMethod::fixed, .groups = 14}); }),
            "fold: fixed planning makes 12 groups of 23 blocks in runs of 2, not 14 | "
            "set fold.planning = \"cost\", or leave fold.groups out");
}

TEST_F(PlanningTest, NeverPutsUnequalShapesTogether) {
  for (int64_t block = 12; block < 30; ++block)
    for (auto& tensor : shapes.blocks[static_cast<size_t>(block)])
      if (tensor.part == Part::gate || tensor.part == Part::up) tensor.shape = {2048, 576};
  // 8 middle blocks before the border, 15 behind it: 4 + 8 groups, so that 12 will do.
  EXPECT_EQ(plan({}).plan.groups.size(), 15u);
  EXPECT_EQ(error_of([&] { plan({.method = PlanningMethod::fixed, .group = 3}); }),
            "fold: blocks 10 and 12 differ in mlp width (1536 vs 2048) and cannot share | "
            "set fold.planning = \"cost\", which cuts between them");
  // In runs of three: 3 + 5 groups, and so for all 23.
  EXPECT_EQ(plan({.group = 3}).plan.groups.size(), 11u);
  // In runs of seven, 23 blocks would go into 4 groups, but 8 and 15 take 2 + 3.
  EXPECT_EQ(plan({.group = 7}).plan.groups.size(), 8u);
  EXPECT_EQ(
      error_of([&] { plan({.group = 7, .groups = 4}); }),
      "fold: blocks 10 and 12 differ in mlp width (1536 vs 2048) and cannot share | fold.groups = 5 is the least");
  EXPECT_EQ(plan({.group = 7, .groups = 5}).plan.groups.size(), 8u);
}

TEST_F(PlanningTest, NeverPutsBlocksTogetherThatLostDifferentHalves) {
  removed.removed_halves = {{3, BlockHalf::mlp}, {4, BlockHalf::mlp}, {7, BlockHalf::attention}};
  const Grouping found = plan({.group = 4, .groups = 9});
  for (const FoldGroup& group : found.plan.groups) {
    const std::set<int64_t> blocks(group.blocks.begin(), group.blocks.end());
    EXPECT_TRUE(!blocks.contains(7) || blocks.size() == 1);
    EXPECT_TRUE(!blocks.contains(3) || blocks.size() == 1 || blocks == std::set<int64_t>({3, 4}));
  }
  EXPECT_EQ(error_of([&] { plan({.method = PlanningMethod::fixed}); }),
            "fold: blocks 2 and 3 differ in what was removed of them (the mlp of one) and cannot share | "
            "set fold.planning = \"cost\", which cuts between them");
}

TEST_F(PlanningTest, KeepsATrainedBlockSingle) {
  const Grouping found = plan({.group = 3, .groups = 9, .trained = 9});
  for (const FoldGroup& group : found.plan.groups)
    if (std::find(group.blocks.begin(), group.blocks.end(), 9) != group.blocks.end()) {
      EXPECT_EQ(group, (FoldGroup{{9}, 9, GroupValues::trained}));
    }
  // 6 middle blocks in front of it and 16 behind: as few groups as can be are 2 + 1 + 6, and so they are when fixed.
  const Grouping fewest = plan({.group = 3, .trained = 9});
  EXPECT_EQ(fewest.plan.groups.size(), 3u + 9);
  const Grouping fixed = plan({.method = PlanningMethod::fixed, .group = 3, .trained = 9});
  EXPECT_EQ(blocks_of(fixed.plan), (Groups{{0},
                                           {1},
                                           {2, 3, 4},
                                           {6, 7, 8},
                                           {9},
                                           {10, 12, 13},
                                           {14, 15, 16},
                                           {18, 19, 20},
                                           {21, 22, 24},
                                           {25, 26, 27},
                                           {28},
                                           {29}}));
  EXPECT_EQ(fixed.plan.groups[4].values, GroupValues::trained);
  EXPECT_EQ(plan({.method = PlanningMethod::fixed, .group = 3, .groups = 9, .trained = 9}).plan.groups.size(), 12u);
}

TEST_F(PlanningTest, OfNothingLeftToShareIsEveryBlockByItself) {
  for (const GroupingOptions& options : {GroupingOptions{.group = 1}, GroupingOptions{.keep_head = 20, .keep_tail = 6},
                                         GroupingOptions{.keep_head = 40, .keep_tail = 40}}) {
    const Grouping found = plan(options);
    EXPECT_EQ(found.plan.groups.size(), 26u);
    EXPECT_TRUE(found.deltas.empty());
  }
}

TEST_F(PlanningTest, RefusesDeltasThatAreNotFinite) {
  EXPECT_NE(error_of([&] {
              plan({}, [](int64_t child, int64_t) { return child == 9 ? NAN : 1.0; });
            }).find("the weights of blocks 9 and 8, or their inputs on the calibration rows, are not finite"),
            std::string::npos);
}

TEST_F(PlanningTest, OfRandomRemovalsGivesSoundPlans) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    const FoldPlan drawn = test::random_fold_plan(random, 30);
    removed = drawn;
    removed.base.layers = 30;
    for (int64_t block = drawn.base.layers; block < 30; ++block)
      if (random() % 3 == 0) removed.removed.push_back(block);
    const auto count = static_cast<int64_t>(30 - removed.removed.size());
    GroupingOptions options{.parent = static_cast<ParentChoice>(random() % 4),
                            .group = static_cast<int64_t>(1 + random() % 4),
                            .keep_head = static_cast<int64_t>(random() % 4),
                            .keep_tail = static_cast<int64_t>(random() % 3)};
    options.groups = std::max<int64_t>(0, count - options.keep_head - options.keep_tail);
    options.groups = *options.groups - (removed.removed_halves.empty() && options.group > 1 ? *options.groups / 2 : 0);
    const Grouping found = plan(options);  // checks the plan
    std::vector<int64_t> blocks;
    for (const FoldGroup& group : found.plan.groups)
      blocks.insert(blocks.end(), group.blocks.begin(), group.blocks.end());
    EXPECT_EQ(blocks, retained_blocks(30, removed.removed)) << seed;
  }
}

}  // namespace
}  // namespace tessera
