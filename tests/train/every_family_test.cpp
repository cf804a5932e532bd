// What training asks of every family of models, whichever are registered.

#include <gtest/gtest.h>

#include "support/batches.h"
#include "support/families.h"
#include "support/gradcheck.h"
#include "train/planned_scratch.h"

namespace tessera {
namespace {

class EveryFamily : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Model> make(const test::TinyConfig& config, DType compute = DType::f32,
                              Memory memory = Memory::held) {
    Model::Settings settings = test::family_settings(GetParam(), folder_.path(), config);
    settings.parameters = settings.activations = compute;
    settings.memory = memory;
    return std::make_unique<Model>(settings);
  }
  test::TemporaryFolder folder_;
};
INSTANTIATE_TEST_SUITE_P(Registered, EveryFamily, testing::ValuesIn(test::family_names()), test::name_of_family);

TEST_P(EveryFamily, HasTheGradientThatIsTheDerivativeOfTheLoss) {
  const test::OwnContext own("reference");
  const PackedBatch batch = test::packed_batch();
  for (const bool tied : {false, true}) {
    const auto model = make({.hidden_size = 12, .intermediate_size = 14, .layers = 2, .tied = tied}, DType::f64);
    test::draw_norms_and_biases(*model, 5);
    model->assemble(own.ctx);
    const auto loss = [&] { return score_batch(own.ctx, *model, batch)["nll"]; };
    for (const bool checkpointed : {false, true}) {
      model->pool().zero_grads();
      backprop_batch(own.ctx, *model, batch, {.checkpoint_activations = checkpointed});
      for (const TrainableSlot& slot : model->pool().trainable().slots)
        EXPECT_LE(test::gradient_error(test::slot_of(model->pool(), slot.name).as<double>(),
                                       test::slot_of(model->pool(), slot.name, true).as<double>(), loss, 4),
                  1e-6)
            << slot.name << (tied ? ", tied" : "") << (checkpointed ? ", checkpointed" : "");
    }
  }
}

TEST_P(EveryFamily, TakesTheScratchThatACountedModelPlans) {
  const auto counted = make({}, DType::f32, Memory::counted), held = make({});
  test::expect_planned_scratch(*counted, *held);
}

}  // namespace
}  // namespace tessera
