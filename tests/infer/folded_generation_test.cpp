// Generation from folded models: each virtual layer has pages of its own.

#include <gtest/gtest.h>

#include "infer/batches.h"
#include "support/folds.h"

namespace tessera {
namespace {

using namespace test;

/// Of a plan of six layers.
void expect_all_as_alone(const FoldPlan& plan) {
  TemporaryFolder folder;
  Model::Settings settings = stored_settings(dense_folder(folder.path(), {.layers = 6}));
  fold_by({.plan = plan, .state = {}}, settings);
  Model model(settings);
  const std::vector<Request> requests = {greedy({3, 14, 1}, 12), greedy({5, 9, 2, 6, 5, 3}, 12), greedy({7}, 12)};
  expect_outputs(answer(model, requests), alone(model, requests), "folded");
}

class FoldedGeneration : public testing::TestWithParam<int64_t> {};

TEST_P(FoldedGeneration, OverPagesIsThatComputedAnew) {
  PlanByHand hand{.layers = 6};
  for (int64_t first = 0; first < 6; first += GetParam()) {
    FoldGroup group = group_of({first});
    for (int64_t block = first + 1; block < first + GetParam(); ++block) group.blocks.push_back(block);
    hand.groups.push_back(group);
  }
  expect_all_as_alone(fold_plan(hand));
}

TEST(FoldedHalves, GenerateOverPagesWhatTheyDoComputedAnew) { expect_all_as_alone(halved_layers()); }

INSTANTIATE_TEST_SUITE_P(GroupsOf, FoldedGeneration, testing::Values(2, 3),
                         [](const auto& info) { return std::to_string(info.param); });

}  // namespace
}  // namespace tessera
