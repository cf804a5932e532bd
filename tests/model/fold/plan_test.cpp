#include "model/fold/plan.h"

#include <gtest/gtest.h>

#include "model/fold/plan_check.h"
#include "support/fold_plans.h"

namespace tessera {
namespace {

FoldPlan example() {
  FoldPlan plan;
  plan.base = {.fingerprint = "9f31", .layers = 8, .model_type = "llama"};
  plan.removed = {2, 5};
  plan.removed_halves = {{0, BlockHalf::mlp}};
  plan.groups = {{{0}, 0, GroupValues::own},
                 {{1}, 1, GroupValues::trained},
                 {{3, 4}, 4, GroupValues::own},
                 {{6, 7}, std::nullopt, GroupValues::wmean}};
  return plan;
}

TEST(VirtualLayers, HaveANumberAnIndexAndAStorage) {
  const auto layers = virtual_layers(example());
  std::vector<std::array<int64_t, 3>> names;
  std::vector<bool> parents;
  for (const VirtualLayer& layer : layers) {
    names.push_back({layer.number, layer.original, layer.group});
    parents.push_back(layer.is_parent);
  }
  EXPECT_EQ(names,
            (std::vector<std::array<int64_t, 3>>{{0, 0, 0}, {1, 1, 1}, {2, 3, 2}, {3, 4, 2}, {4, 6, 3}, {5, 7, 3}}));
  EXPECT_EQ(parents, (std::vector<bool>{true, true, false, true, false, false}));  // of a mean, all are children
  EXPECT_FALSE(layers[0].has_mlp);
  EXPECT_TRUE(layers[0].has_attention && layers[1].has_mlp);
}

TEST(VirtualLayers, OfRandomPlansAreTheRetainedBlocksInOrder) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    std::mt19937_64 random(seed);
    const FoldPlan plan = test::random_fold_plan(random);
    ASSERT_EQ(fault_of(plan), std::nullopt) << seed << ": " << fault_of(plan)->what;
    const auto layers = virtual_layers(plan);
    ASSERT_EQ(static_cast<int64_t>(layers.size()), plan.virtual_layers()) << seed;
    std::vector<int64_t> originals;
    std::vector<int64_t> parents(plan.groups.size());
    for (size_t v = 0; v < layers.size(); ++v) {
      EXPECT_EQ(layers[v].number, static_cast<int64_t>(v)) << seed;
      EXPECT_GE(layers[v].group, v ? layers[v - 1].group : 0) << seed;
      originals.push_back(layers[v].original);
      parents[static_cast<size_t>(layers[v].group)] += layers[v].is_parent;
    }
    EXPECT_EQ(originals, retained_blocks(plan.base.layers, plan.removed)) << seed;
    for (size_t g = 0; g < plan.groups.size(); ++g) EXPECT_EQ(parents[g], plan.groups[g].parent ? 1 : 0) << seed;
  }
}

TEST(DepthPlan, GroupsNeighboursAndReadsTheFirst) {
  for (int64_t layers = 1; layers <= 13; ++layers)
    for (int64_t stored = 1; stored <= layers; ++stored) {
      const FoldPlan plan = depth_plan(layers, stored, "llama");
      EXPECT_EQ(fault_of(plan), std::nullopt) << layers << " " << stored;
      EXPECT_TRUE(plan.removed.empty() && plan.child.level == ChildLevel::norm);
      for (const VirtualLayer& layer : virtual_layers(plan)) {
        EXPECT_EQ(layer.original, layer.number);
        EXPECT_EQ(layer.group, layer.number * stored / layers) << layers << " " << stored;
        EXPECT_EQ(layer.is_parent, layer.number == 0 || (layer.number - 1) * stored / layers < layer.group);
      }
    }
}

TEST(PlanText, HasALineABlock) {
  EXPECT_EQ(plan_text(example()),
            "block 0: layer 0, group 0, own weights, no mlp\n"
            "block 1: layer 1, group 1, trained weights\n"
            "block 2: removed\n"
            "block 3: layer 2, group 2, weights of block 4\n"
            "block 4: layer 3, group 2, own weights\n"
            "block 5: removed\n"
            "block 6: layer 4, group 3, weighted mean of blocks 6 to 7\n"
            "block 7: layer 5, group 3, weighted mean of blocks 6 to 7\n");
  FoldPlan plan = identity_plan({.fingerprint = {}, .layers = 11, .model_type = "llama"});
  plan.removed = {10};
  plan.groups.pop_back();
  const std::string text = plan_text(plan);
  EXPECT_EQ(text.substr(0, text.find('\n')), "block  0: layer  0, group  0, own weights");
  EXPECT_EQ(text.substr(text.size() - 18), "block 10: removed\n");
}

}  // namespace
}  // namespace tessera
