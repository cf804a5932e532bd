// What generation asks of every family of models, whichever are registered.

#include <gtest/gtest.h>

#include "infer/batches.h"
#include "support/families.h"

namespace tessera {
namespace {

using namespace test;

const std::vector<Request> kRequests = {greedy({3, 14, 1}, 12), greedy({5}, 12),
                                        greedy({9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3}, 12), greedy({8, 4}, 12)};

/// However many are continued together: the bits of everything computed anew.
void expect_all_as_alone(Model& model) {
  const std::vector<Output> want = alone(model, kRequests);
  for (const int64_t sequences : {1, 3, 4}) {
    Batch batch;
    batch.options = {.page_tokens = 8, .step_tokens = 7, .max_sequences = sequences};
    expect_outputs(answer(model, kRequests, batch), want, fmt::format("{} sequences", sequences));
  }
}

class EveryFamily : public testing::TestWithParam<std::string> {
 protected:
  EveryFamily() : model_(settings()) { draw_norms_and_biases(model_, 3); }
  Model::Settings settings() const { return family_settings(GetParam(), folder_.path()); }
  TemporaryFolder folder_;
  Model model_;
};
INSTANTIATE_TEST_SUITE_P(Registered, EveryFamily, testing::ValuesIn(family_names()), name_of_family);

TEST_P(EveryFamily, ContinuesOverPagesAsItDoesComputedAnew) { expect_all_as_alone(model_); }

TEST_P(EveryFamily, GeneratesInTheMemoryThatACountedModelPlans) {
  Model::Settings counting = settings();
  counting.memory = Memory::counted;
  Model counted(counting);
  // A pass is as wide as it is planned: all of its rows are of prompts, and all of them are scored.
  std::vector<Request> requests = {greedy(ids_of(40, 3, 23), 3), greedy(ids_of(30, 5, 23), 0, -1)};
  requests[0].prompt_logprobs = 0;
  Batch batch;
  batch.options.step_tokens = 32;
  const BatchPlan plan = plan_of(counted, requests, batch);
  const EngineMemory planned = memory_of(counted, plan, batch);
  const Engine engine("cpu", planned.bytes(), 2);
  EXPECT_NO_THROW(answer_in(engine.ctx, model_, requests, plan, batch.options, planned.bundles));
  EXPECT_LE(static_cast<double>(planned.bytes()), 1.1 * static_cast<double>(engine.arena.peak_bytes()));
}

/// Models whose layers have windows shorter than a prompt and its continuation, or no positions.
TEST(Layers, ContinueOverPagesAsTheyDoComputedAnewWhereTheyDiffer) {
  for (const char* name : {"mistral", "qwen2_windows", "qwen3_windows", "smollm3", "smollm3_list"}) {
    SCOPED_TRACE(name);
    expect_all_as_alone(*load_model(golden(name), 32));
  }
}

}  // namespace
}  // namespace tessera
