// What generation asks of every family of models, whichever are registered.

#include <gtest/gtest.h>

#include <algorithm>

#include "infer/generate.h"
#include "support/engine.h"
#include "support/families.h"

namespace tessera {
namespace {

constexpr int64_t kNewTokens = 12;

class EveryFamily : public testing::TestWithParam<std::string> {
 protected:
  EveryFamily() : model_(settings()) { test::draw_norms_and_biases(model_, 3); }
  Model::Settings settings() const { return test::family_settings(GetParam(), folder_.path()); }
  /// By computing everything anew for each token.
  std::vector<int32_t> greedy_without_cache(const Context& ctx, std::vector<int32_t> ids) {
    const size_t prompt = ids.size();
    for (int64_t i = 0; i < kNewTokens; ++i) {
      const Tensor logits = test::logits_of(ctx, model_, ids);
      const auto last = logits.view().as<float>().last(static_cast<size_t>(model_.config().vocab_size));
      ids.push_back(static_cast<int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
    }
    return {ids.begin() + static_cast<std::ptrdiff_t>(prompt), ids.end()};
  }

  test::TemporaryFolder folder_;
  Model model_;
  const std::vector<std::vector<int32_t>> prompts_ = {{3, 14, 1}, {5}, {9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3}, {8, 4}};
};
INSTANTIATE_TEST_SUITE_P(Registered, EveryFamily, testing::ValuesIn(test::family_names()), test::name_of_family);

TEST_P(EveryFamily, ContinuesWithACacheAsWithoutOne) {
  const test::Engine engine;
  for (const int64_t batch : {1, 3, 4}) {
    const auto all = generate(engine.ctx, model_, prompts_, {.max_new_tokens = kNewTokens, .batch = batch});
    for (size_t i = 0; i < prompts_.size(); ++i)
      EXPECT_EQ(all[i].ids, greedy_without_cache(engine.ctx, prompts_[i])) << "prompt " << i << " of " << batch;
  }
}

TEST_P(EveryFamily, GeneratesInTheMemoryThatACountedModelPlans) {
  Model::Settings counting = settings();
  counting.memory = Memory::counted;
  Model counted(counting);
  const GenerateOptions options{.max_new_tokens = kNewTokens, .batch = 3};
  const int64_t planned = plan_generation_bytes(counted, prompts_, options, 2);
  const test::Engine engine("cpu", planned, 2);
  EXPECT_NO_THROW(generate(engine.ctx, model_, prompts_, options));
  EXPECT_LE(static_cast<double>(planned), 1.1 * static_cast<double>(engine.arena.peak_bytes()));
}

}  // namespace
}  // namespace tessera
