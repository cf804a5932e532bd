// Training folded models: gradients of what several layers read, and depth sharing as the plan that it is.

#include <gtest/gtest.h>

#include "core/error.h"
#include "support/batches.h"
#include "support/engine.h"
#include "support/folds.h"
#include "train/backprop.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

using test::OwnContext;

class FoldedTraining : public testing::Test {
 protected:
  static LossSums backward(const Context& ctx, Model& model) {
    model.pool().zero_grads();
    model.assemble(ctx);
    const LossSums sums = backprop_batch(ctx, model, test::packed_batch(), {});
    if (model.bound_adapter()) model.bound_adapter()->finish_backward(ctx);
    return sums;
  }
  static double norm_of(const ConstView& view) {
    double square = 0;
    for (int64_t i = 0; i < view.shape.count(); ++i) square += element(view, i) * element(view, i);
    return std::sqrt(square);
  }
  test::TemporaryFolder folder_;
};

TEST_F(FoldedTraining, TheGradientOfAGroupIsTheSumOfThoseOfItsLayers) {
  const auto dense = test::dense_folder(folder_.path(), {.layers = 6});
  const FoldPlan plan = test::six_layers();
  Model::Settings settings = test::stored_settings(dense);
  settings.train_base = true;
  settings.parameters = settings.activations = DType::f64;
  Model::Settings of_twin = settings;
  of_twin.model.path = test::unfolded_twin(dense, plan, folder_ / "twin");
  test::fold_by({.plan = plan, .state = {}}, settings);
  Model folded(settings), twin(of_twin);
  const OwnContext own("reference");
  EXPECT_EQ(backward(own.ctx, folded)["nll"], backward(own.ctx, twin)["nll"]);
  const auto layers = virtual_layers(plan);
  int summed = 0;
  for (const TrainableSlot& slot : folded.pool().trainable().slots) {
    Tensor sum(slot.shape, DType::f64);
    const auto add = [&](const std::string& name) {
      const ConstView grad = test::slot_of(twin.pool(), name, true);
      for (int64_t i = 0; i < grad.shape.count(); ++i) sum.as<double>()[static_cast<size_t>(i)] += element(grad, i);
    };
    if (slot.name.starts_with("fold.group.")) {
      const size_t dot = slot.name.find('.', 11);
      const int64_t group = std::stoll(slot.name.substr(11, dot - 11));
      for (const VirtualLayer& layer : layers) {
        if (layer.group != group) continue;
        add(fmt::format("model.layers.{}.{}", layer.number, slot.name.substr(dot + 1)));
        ++summed;
      }
    } else if (slot.name.starts_with("fold.layer.")) {
      add("model.layers." + slot.name.substr(11));
    } else {
      add(slot.name);
    }
    const ConstView ours = test::slot_of(folded.pool(), slot.name, true);
    for (int64_t i = 0; i < ours.shape.count(); ++i)
      ASSERT_NEAR(element(ours, i), element(sum.view(), i), 1e-13 * norm_of(ours)) << slot.name;
  }
  EXPECT_EQ(summed, 5 * 7);
}

/// Depth sharing names its slots otherwise; what it computes over 50 steps is what its plan computes.
TEST_F(FoldedTraining, DepthSharingIsAPlanToTheBit) {
  for (const int64_t blocks : {1, 2, 4}) {
    Model::Settings settings = test::tiny_settings(folder_.path(), {.layers = 5});
    settings.train_base = true;
    Model::Settings planned = settings;
    settings.sharing.method = "depth";
    settings.sharing.blocks = blocks;
    const FoldPlan plan = depth_plan(5, blocks, "llama");
    test::fold_by({.plan = plan, .state = {}}, planned);
    Model depth(settings), folded(planned);
    std::vector<std::pair<std::string, std::string>> names;  // of a slot in both
    const auto layers = virtual_layers(plan);
    for (const TrainableSlot& slot : folded.pool().trainable().slots) {
      std::string name = slot.name;
      if (name.starts_with("fold.layer.")) name = "model.layers." + name.substr(11);
      if (name.starts_with("fold.group.")) {
        const size_t dot = name.find('.', 11);
        const auto group = static_cast<size_t>(std::stoll(name.substr(11, dot - 11)));
        name = fmt::format("model.layers.{}.{}", plan.groups[group].blocks.front(), name.substr(dot + 1));
      }
      names.emplace_back(slot.name, name);
    }
    ASSERT_EQ(names.size(), depth.pool().trainable().slots.size());
    for (const auto& [ours, theirs] : names) {
      const auto from = test::slot_of(depth.pool(), theirs).as<float>();
      std::copy(from.begin(), from.end(), test::slot_of(folded.pool(), ours).as<float>().begin());
    }
    OptimizerConfig config;
    config.weight_decay = 0.1;
    const auto of_depth = make_optimizer(config, depth.pool().trainable().values.shape.count()),
               of_plan = make_optimizer(config, folded.pool().trainable().values.shape.count());
    const OwnContext own;
    for (int64_t step = 1; step <= 50; ++step) {
      ASSERT_EQ(backward(own.ctx, depth)["nll"], backward(own.ctx, folded)["nll"]) << step;
      of_depth->step(own.ctx, depth.pool().trainable(), {.step = step, .lr = 0.01f, .grad_scale = 0.05f});
      of_plan->step(own.ctx, folded.pool().trainable(), {.step = step, .lr = 0.01f, .grad_scale = 0.05f});
    }
    for (const auto& [ours, theirs] : names)
      EXPECT_TRUE(test::same_bytes(test::slot_of(folded.pool(), ours), test::slot_of(depth.pool(), theirs))) << ours;
  }
}

TEST_F(FoldedTraining, OfItsOwnNumbersMovesThemAlone) {
  const auto dense = test::dense_folder(folder_.path(), {.layers = 6});
  AdapterConfig lora;
  lora.method = "lora";
  lora.rank = 2;
  Model::Settings settings = test::stored_settings(dense);
  settings.train_base = true;
  test::fold_by({.plan = test::six_layers({ChildLevel::lora, 2}),
                 .state = {},
                 .training = FoldTraining::own,
                 .starts = {},
                 .cure = lora},
                settings);
  Model model(settings);
  const OwnContext own;
  const auto optimizer = make_optimizer({}, model.pool().trainable().values.shape.count());
  std::vector<double> losses;
  for (int64_t step = 1; step <= 30; ++step) {
    losses.push_back(backward(own.ctx, model)["nll"]);
    optimizer->step(own.ctx, model.pool().trainable(), {.step = step, .lr = 0.02f, .grad_scale = 0.05f});
  }
  EXPECT_LT(losses.back(), 0.7 * losses.front());
  for (const TrainableSlot& slot : model.pool().trainable().slots)
    EXPECT_GT(norm_of(test::slot_of(model.pool(), slot.name, true)), 0) << slot.name;
  for (const auto& file : model.source()->files()) EXPECT_EQ(file->change(), MappedFile::Change::none);
}

}  // namespace
}  // namespace tessera
