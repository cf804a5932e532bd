// What generation asks of every family of models, whichever are registered.

#include <gtest/gtest.h>

#include <algorithm>

#include "infer/generate.h"
#include "support/engine.h"
#include "support/families.h"

namespace tessera {
namespace {

constexpr int64_t kNewTokens = 12;

const std::vector<std::vector<int32_t>> kPrompts = {{3, 14, 1}, {5}, {9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3}, {8, 4}};

/// By computing everything anew for each token.
std::vector<int32_t> greedy_without_cache(const Context& ctx, Model& model, std::vector<int32_t> ids) {
  const size_t prompt = ids.size();
  for (int64_t i = 0; i < kNewTokens; ++i) {
    const Tensor logits = test::logits_of(ctx, model, ids);
    const auto last = logits.view().as<float>().last(static_cast<size_t>(model.config().vocab_size));
    ids.push_back(static_cast<int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
  }
  return {ids.begin() + static_cast<std::ptrdiff_t>(prompt), ids.end()};
}

void expect_the_same_without_a_cache(Model& model) {
  const test::Engine engine;
  for (const int64_t batch : {1, 3, 4}) {
    const auto all = generate(engine.ctx, model, kPrompts, {.max_new_tokens = kNewTokens, .batch = batch});
    for (size_t i = 0; i < kPrompts.size(); ++i)
      EXPECT_EQ(all[i].ids, greedy_without_cache(engine.ctx, model, kPrompts[i])) << "prompt " << i << " of " << batch;
  }
}

class EveryFamily : public testing::TestWithParam<std::string> {
 protected:
  EveryFamily() : model_(settings()) { test::draw_norms_and_biases(model_, 3); }
  Model::Settings settings() const { return test::family_settings(GetParam(), folder_.path()); }
  test::TemporaryFolder folder_;
  Model model_;
};
INSTANTIATE_TEST_SUITE_P(Registered, EveryFamily, testing::ValuesIn(test::family_names()), test::name_of_family);

TEST_P(EveryFamily, ContinuesWithACacheAsWithoutOne) { expect_the_same_without_a_cache(model_); }

TEST_P(EveryFamily, GeneratesInTheMemoryThatACountedModelPlans) {
  Model::Settings counting = settings();
  counting.memory = Memory::counted;
  Model counted(counting);
  const GenerateOptions options{.max_new_tokens = kNewTokens, .batch = 3};
  const int64_t planned = plan_generation_bytes(counted, kPrompts, options, 2);
  const test::Engine engine("cpu", planned, 2);
  EXPECT_NO_THROW(generate(engine.ctx, model_, kPrompts, options));
  EXPECT_LE(static_cast<double>(planned), 1.1 * static_cast<double>(engine.arena.peak_bytes()));
}

/// Models whose layers have windows shorter than a prompt and its continuation, or no positions.
TEST(Layers, ContinueWithACacheAsWithoutOneWhereTheyDiffer) {
  for (const char* name : {"mistral", "qwen2_windows", "qwen3_windows", "smollm3", "smollm3_list"}) {
    SCOPED_TRACE(name);
    const auto model = test::load_model(test::source_dir() / "tests/golden" / name, 32);
    expect_the_same_without_a_cache(*model);
  }
}

}  // namespace
}  // namespace tessera
