#include "model/fold/plan_shapes.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "support/family_with.h"
#include "support/fold_plans.h"

namespace tessera {
namespace {

ModelShapes llama2_7b() {
  return shapes_of(weight_specs(parse_model_config(test::to_json({.vocab_size = 32000,
                                                                  .hidden_size = 4096,
                                                                  .intermediate_size = 11008,
                                                                  .layers = 32,
                                                                  .heads = 32,
                                                                  .kv_heads = 32,
                                                                  .head_dim = 128}),
                                                   "LLaMA-2-7B")));
}

/// `removed` blocks go; the first `head` and the last `tail` retained ones stay single, the rest share in runs of the
/// given sizes.
FoldPlan plan_of(int64_t layers, std::vector<int64_t> removed, int64_t head, const std::vector<int64_t>& runs) {
  FoldPlan plan;
  plan.base = {.fingerprint = {}, .layers = layers, .model_type = "llama"};
  plan.removed = std::move(removed);
  const auto retained = retained_blocks(layers, plan.removed);
  size_t next = 0, run = 0;
  while (next < retained.size()) {
    const bool is_single = next < static_cast<size_t>(head) || run >= runs.size();
    const int64_t size = is_single ? 1 : runs[run++];
    FoldGroup group{.blocks = {}, .parent = retained[next], .values = GroupValues::own};
    for (int64_t i = 0; i < size; ++i) group.blocks.push_back(retained[next++]);
    plan.groups.push_back(group);
  }
  return plan;
}

TEST(PlanCounts, AreThoseOfTheWorkedExampleOfSmolLM2) {
  const ModelShapes shapes = test::smollm2_shapes();
  EXPECT_EQ(model_parameters(shapes), 134515008);
  EXPECT_EQ(shapes.outside, 28312128);
  EXPECT_EQ(half_parameters(shapes, 3, BlockHalf::attention) + half_parameters(shapes, 3, BlockHalf::mlp), 3540096);
  std::vector<int64_t> runs(14, 2);
  for (size_t i = 9; i < 14; ++i) runs[i] = 1;  // 23 blocks in 14 groups
  const FoldPlan plan = plan_of(30, {5, 11, 17, 23}, 2, runs);
  EXPECT_EQ(plan.groups.size(), 17u);
  EXPECT_EQ(stored_parameters(plan, shapes), 88504128);
  EXPECT_EQ(computed_parameters(plan, shapes), 28312128 + 26 * 3540096);
}

TEST(PlanCounts, AreThoseOfTheWorkedExampleOfLLaMA2) {
  const ModelShapes shapes = llama2_7b();
  EXPECT_EQ(model_parameters(shapes), 6738415616);
  EXPECT_EQ(shapes.outside, 262148096);
  FoldPlan plan = plan_of(32, {20, 21, 22, 23}, 2, std::vector<int64_t>(12, 2));
  EXPECT_EQ(plan.groups.size(), 16u);
  EXPECT_EQ(stored_parameters(plan, shapes), 262148096 + 16 * int64_t{202383360} + 12 * 8192);
  EXPECT_NEAR(static_cast<double>(stored_parameters(plan, shapes)), 3.50e9, 5e6);
  // What a child adds, level by level, as the method's table has it.
  const int64_t norms = stored_parameters(plan, shapes);
  plan.child.level = ChildLevel::tie;
  EXPECT_EQ(norms - stored_parameters(plan, shapes), 12 * 8192);
  plan.child.level = ChildLevel::scale;
  EXPECT_EQ(stored_parameters(plan, shapes) - norms, 12 * 42496);
  plan.child = {ChildLevel::lora, 8};
  EXPECT_EQ(stored_parameters(plan, shapes) - norms, 12 * (42496 + 78080 * 8));
  plan.child = {ChildLevel::mos, 3};
  EXPECT_EQ(stored_parameters(plan, shapes) - norms, 12 * (42496 + 78080 * 3));
}

TEST(PlanCounts, OfADeltaEndAtTheRankThatItsLinearCanHave) {
  const ModelShapes shapes = test::smollm2_shapes();
  FoldPlan plan = plan_of(30, {}, 0, {2});
  const int64_t norms = stored_parameters(plan, shapes), gains = 576 + 192 + 192 + 576 + 1536 + 1536 + 576;
  plan.child = {ChildLevel::lora, 1024};  // k and v have 192 outputs, the others at least 576
  const int64_t deltas = 2 * 576 * (576 + 576) + 2 * 192 * (192 + 576) + 3 * 576 * (576 + 1536);
  EXPECT_EQ(stored_parameters(plan, shapes) - norms, gains + deltas);
  EXPECT_EQ(computed_parameters(plan, shapes) - model_parameters(shapes), gains + deltas);
}

TEST(PlanCounts, OfAMeanMakeEveryBlockAChild) {
  const ModelShapes shapes = test::smollm2_shapes();
  FoldPlan plan = plan_of(30, {}, 0, {3});
  plan.groups[0] = {{0, 1, 2}, std::nullopt, GroupValues::mean};
  const int64_t norms = 28312128 + 28 * 3540096 + 2 * 1152;  // three sets of norms, one of linears
  EXPECT_EQ(stored_parameters(plan, shapes), norms);
  plan.child.level = ChildLevel::scale;
  EXPECT_EQ(stored_parameters(plan, shapes), norms + 3 * (576 + 192 + 192 + 576 + 1536 + 1536 + 576));
}

TEST(PlanCounts, LeaveOutRemovedHalves) {
  const ModelShapes shapes = test::smollm2_shapes();
  FoldPlan plan = identity_plan({.fingerprint = {}, .layers = 30, .model_type = "llama"});
  plan.removed_halves = {{4, BlockHalf::mlp}, {9, BlockHalf::attention}};
  const int64_t mlp = 3 * 576 * 1536 + 576, attention = 2 * 576 * 576 + 2 * 576 * 192 + 576;
  EXPECT_EQ(stored_parameters(plan, shapes), 134515008 - mlp - attention);
  EXPECT_EQ(half_parameters(shapes)[8], attention);
  EXPECT_EQ(half_parameters(shapes)[9], mlp);
}

TEST(PlanCounts, GiveBiasesToEveryVirtualLayer) {
  const ModelFamily family = test::family_with(true, test::QkNorms::none);
  ModelConfig config = parse_model_config(test::to_json({}), "tiny");
  const ModelShapes shapes = shapes_of(family.specs(config));
  const FoldPlan own = depth_plan(3, 3, "biased"), shared = depth_plan(3, 1, "biased");
  const int64_t linears = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 20;
  EXPECT_EQ(stored_parameters(own, shapes), model_parameters(shapes));
  EXPECT_EQ(stored_parameters(own, shapes) - stored_parameters(shared, shapes), 2 * linears);
}

TEST(PlanCounts, OfRandomPlansAreSumsOverTheirParts) {
  const ModelShapes shapes = test::smollm2_shapes();
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    FoldPlan plan = test::random_fold_plan(random, 30);
    const int64_t stored = stored_parameters(plan, shapes), computed = computed_parameters(plan, shapes);
    EXPECT_LE(stored, computed) << seed;
    // Without sharing both are the same.
    FoldPlan apart = plan;
    apart.groups.clear();
    for (const int64_t block : retained_blocks(plan.base.layers, plan.removed))
      apart.groups.push_back({{block}, block});
    int64_t left = shapes.outside;
    for (const VirtualLayer& layer : virtual_layers(apart))
      left += (layer.has_attention ? half_parameters(shapes, layer.original, BlockHalf::attention) : 0) +
              (layer.has_mlp ? half_parameters(shapes, layer.original, BlockHalf::mlp) : 0);
    EXPECT_EQ(stored_parameters(apart, shapes), left) << seed;
    EXPECT_EQ(computed_parameters(apart, shapes), left) << seed;
  }
}

TEST(Shapes, ThatDifferCannotShare) {
  ModelShapes shapes = test::smollm2_shapes();
  for (auto& tensor : shapes.blocks[12])
    if (tensor.part == Part::gate || tensor.part == Part::up) tensor.shape = {2048, 576};
  EXPECT_EQ(difference(shapes, 11, 12), "mlp width (1536 vs 2048)");
  EXPECT_EQ(difference(shapes, 10, 11), "");
  const FoldPlan plan = depth_plan(30, 15, "llama");  // blocks 12 and 13 are one
  try {
    require_equal_shapes(plan, shapes, "plan.json");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(error.message(), "fold: blocks 12 and 13 differ in mlp width (2048 vs 1536) and cannot share");
  }
  EXPECT_NO_THROW(require_equal_shapes(depth_plan(30, 30, "llama"), shapes, "plan.json"));
  shapes.blocks[3].pop_back();
  EXPECT_EQ(difference(shapes, 3, 4), "number of tensors (8 vs 9)");
}

}  // namespace
}  // namespace tessera
