// Generation from folded models: each virtual layer has a cache of its own.

#include <gtest/gtest.h>

#include "infer/generate.h"
#include "infer/sampler.h"
#include "support/engine.h"
#include "support/folds.h"

namespace tessera {
namespace {

/// Of a plan of six layers.
void expect_the_same_without_a_cache(const FoldPlan& plan) {
  test::TemporaryFolder folder;
  const auto dense = test::dense_folder(folder.path(), {.layers = 6});
  Model::Settings settings = test::stored_settings(dense);
  test::fold_by({.plan = plan, .state = {}}, settings);
  Model model(settings);
  const test::OwnContext own;
  const std::vector<std::vector<int32_t>> prompts = {{3, 14, 1}, {5, 9, 2, 6, 5, 3}, {7}};
  GenerateOptions options;
  options.max_new_tokens = 12;
  const auto results = generate(own.ctx, model, prompts, options);
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<int32_t> ids = prompts[i];
    for (int64_t token = 0; token < 12; ++token) {
      const Tensor logits = test::logits_of(own.ctx, model, ids);
      const auto last = logits.as<float>().last(static_cast<size_t>(model.config().vocab_size));
      ids.push_back(choose_token(last, {}, 0));
    }
    EXPECT_EQ(results[i].ids, std::vector<int32_t>(ids.begin() + static_cast<ptrdiff_t>(prompts[i].size()), ids.end()));
  }
}

class FoldedGeneration : public testing::TestWithParam<int64_t> {};

TEST_P(FoldedGeneration, WithACacheIsThatWithoutOne) {
  test::PlanByHand hand{.layers = 6};
  for (int64_t first = 0; first < 6; first += GetParam()) {
    FoldGroup group = test::group_of({first});
    for (int64_t block = first + 1; block < first + GetParam(); ++block) group.blocks.push_back(block);
    hand.groups.push_back(group);
  }
  expect_the_same_without_a_cache(test::fold_plan(hand));
}

TEST(FoldedHalves, WithACacheGenerateWhatTheyDoWithoutOne) { expect_the_same_without_a_cache(test::halved_layers()); }

INSTANTIATE_TEST_SUITE_P(GroupsOf, FoldedGeneration, testing::Values(2, 3),
                         [](const auto& info) { return std::to_string(info.param); });

}  // namespace
}  // namespace tessera
