// What training asks of every way to hold weights or their deltas, whichever are registered.

#include <gtest/gtest.h>

#include "support/batches.h"
#include "support/gradcheck.h"
#include "support/methods.h"
#include "train/backprop.h"
#include "train/planned_scratch.h"
#include "train/training.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

double dot(const ConstView& a, const ConstView& b) {
  double sum = 0;
  for (int64_t i = 0; i < a.shape.count(); ++i) sum += element(a, i) * element(b, i);
  return sum;
}

class EveryMethod : public test::Training, public testing::WithParamInterface<test::WeightMethod> {
 protected:
  EveryMethod() {
    config_.train.steps = 6;
    config_.checkpoint.every = 3;
  }
  std::unique_ptr<Model> make(Memory memory = Memory::held) {
    Model::Settings settings = test::trained_by(GetParam(), test::tiny_settings(folder_.path()));
    settings.adapter.dropout = 0.1;
    settings.memory = memory;
    return std::make_unique<Model>(settings);
  }
  TrainOutcome train(Model& model, const RunFolder* folder = nullptr, const fs::path& from = {}) {
    TrainerInputs in = inputs(model);
    in.folder = folder;
    in.resume_from = from;
    return run_training(in);
  }
  /// Views that read trained numbers: of the weights, or of an adapter's matrices.
  static std::vector<ViewPtr> trained_views(Model& model) {
    std::vector<ViewPtr> views;
    for (int i = 0; i < static_cast<int>(model.decoder().specs().size()); ++i)
      if (const ViewPtr view = model.decoder().weight(i); view->is_trainable()) views.push_back(view);
    if (!model.bound_adapter()) return views;
    for (const auto& deltas : model.bound_adapter()->weights().by_weight)
      for (const LowRank& delta : deltas) views.insert(views.end(), {delta.a, delta.bt});
    return views;
  }
};

TEST_P(EveryMethod, HasTheGradientThatIsTheDerivativeOfTheLoss) {
  Model::Settings settings = test::trained_by(
      GetParam(), test::tiny_settings(folder_.path(), {.hidden_size = 12, .intermediate_size = 8, .layers = 2}));
  settings.sharing.compression = 2;  // as many as layers
  settings.parameters = settings.activations = DType::f64;
  settings.adapter.alpha = 5;  // a scale other than 1
  Model model(settings);
  if (model.bound_adapter()) test::fill_all_normal(model.pool(), 3, 0.4);
  const test::OwnContext own("reference");
  const PackedBatch batch = test::packed_batch();
  const auto loss = [&] {
    model.assemble(own.ctx);
    return score_batch(own.ctx, model, batch)["nll"];
  };
  ASSERT_FALSE(model.pool().trainable().slots.empty());
  for (const bool checkpointed : {false, true}) {
    model.pool().zero_grads();
    loss();  // assembles
    backprop_batch(own.ctx, model, batch, {.checkpoint_activations = checkpointed});
    if (model.bound_adapter()) model.bound_adapter()->finish_backward(own.ctx);
    for (const TrainableSlot& slot : model.pool().trainable().slots)
      EXPECT_LE(test::gradient_error(test::slot_of(model.pool(), slot.name).as<double>(),
                                     test::slot_of(model.pool(), slot.name, true).as<double>(), loss, 3),
                1e-6)
          << slot.name << (checkpointed ? ", checkpointed" : "");
  }
}

TEST_P(EveryMethod, ReadsNumbersByALinearMapAndCollectsGradientsByItsAdjoint) {
  const auto model = make();
  const auto views = trained_views(*model);
  ASSERT_FALSE(views.empty());
  uint32_t seed = 1;
  for (const ViewPtr& view : views) {
    model->pool().zero_grads();
    test::fill_all_normal(model->pool(), seed++, 1);
    Tensor w(view->shape(), DType::f32), v(view->shape(), DType::f32);
    test::fill_normal(v, seed++, 1);
    view->gather(own_.ctx, {&model->pool()}, w);
    view->scatter_add(own_.ctx, v.view(), model->pool());
    const FlatParams& params = model->pool().trainable();
    const double rounding = 1e-6 * std::sqrt(dot(w.view(), w.view()) * dot(v.view(), v.view()));
    EXPECT_NEAR(dot(w.view(), v.view()), dot(params.values, params.grads), rounding);
    EXPECT_GT(dot(w.view(), w.view()), 0);
  }
}

TEST_P(EveryMethod, GoesOnFromACheckpointWithTheSameBits) {
  const RunFolder run(folder_ / "run", "auto");
  const auto straight = make();
  const TrainOutcome whole = train(*straight, &run);
  const auto resumed = make();
  const TrainOutcome rest = train(*resumed, nullptr, checkpoint_file(run / "checkpoints", 3));
  EXPECT_EQ(rest.meta.step, 6);
  EXPECT_EQ(rest.meta.last_loss, whole.meta.last_loss);
  EXPECT_EQ(values_hash(resumed->pool().trainable()), values_hash(straight->pool().trainable()));
  EXPECT_NE(values_hash(make()->pool().trainable()), values_hash(straight->pool().trainable()))
      << "nothing was trained";
}

TEST_P(EveryMethod, AllReducesFourBytesATrainedParameterAndStep) {
  const auto model = make();
  const Traffic before = world_->traffic();
  train(*model);
  EXPECT_EQ(world_->traffic().all_reduce.bytes - before.all_reduce.bytes, 6 * 4 * model->pool().trainable_count());
  EXPECT_EQ(world_->traffic().all_reduce.calls - before.all_reduce.calls, 6);
  EXPECT_EQ(world_->traffic().broadcast.bytes, before.broadcast.bytes);
}

TEST_P(EveryMethod, TakesTheScratchThatACountedModelPlans) {
  const auto counted = make(Memory::counted), held = make();
  test::expect_planned_scratch(*counted, *held);
}

INSTANTIATE_TEST_SUITE_P(Registered, EveryMethod, testing::ValuesIn(test::weight_methods()), test::name_of_method);

}  // namespace
}  // namespace tessera
