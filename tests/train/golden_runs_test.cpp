// Thirty steps of training against what `peft` and `transformers` recorded (tests/golden/README.md).

#include <gtest/gtest.h>

#include "support/adamw.h"
#include "support/golden.h"
#include "support/tiny_model.h"
#include "train/backprop.h"

namespace tessera {
namespace {

using test::golden;

class GoldenRun : public testing::TestWithParam<std::string> {
 protected:
  GoldenRun() : own_(GetParam()) {}

  void expect_losses(Model& model, const SafetensorsReader& expected, test::AdamW optimizer) {
    const ConstView ids = expected.at("input_ids"), labels = expected.at("labels"), losses = expected.at("losses");
    for (int64_t step = 0; step < losses.shape[0]; ++step) {
      const Shape rows{ids.shape[1], ids.shape[2]};
      const PackedBatch batch =
          test::batch_of(ids.slice_rows(step, step + 1).reshape(rows), labels.slice_rows(step, step + 1).reshape(rows));
      model.assemble(own_.ctx);
      const LossSums sums = backprop_batch(own_.ctx, model, batch);
      if (model.bound_adapter()) model.bound_adapter()->finish_backward(own_.ctx);
      optimizer.step(own_.ctx, model.pool(), static_cast<int64_t>(sums["scored"]));
      EXPECT_NEAR(sums["nll"] / sums["scored"], element(losses, step), 1e-5 * element(losses, step)) << "step " << step;
    }
    model.assemble(own_.ctx);
  }
  test::OwnContext own_;
};

/// [out, r] of PEFT and [r, out] of ours.
Tensor transposed(const ConstView& b) {
  Tensor bt({b.shape[1], b.shape[0]}, DType::f32);
  for (int64_t i = 0; i < b.shape[0]; ++i)
    for (int64_t j = 0; j < b.shape[1]; ++j) bt.view().row<float>(j)[i] = b.row<float>(i)[j];
  return bt;
}

TEST_P(GoldenRun, LoraFollowsPeft) {
  const auto expected = SafetensorsReader::open(golden("lora") / "golden.safetensors");
  Model::Settings settings;
  settings.model.path = golden("lora");
  settings.max_position = 64;
  settings.adapter.method = "lora";
  settings.adapter.rank = 4;
  settings.adapter.alpha = 8;
  Model model(settings);
  const auto for_each_matrix = [&](const std::string& prefix, auto visit) {
    for (const WeightSpec& spec : model.decoder().specs()) {
      if (spec.role != Role::linear) continue;
      const std::string module = spec.name.substr(0, spec.name.rfind(".weight")),
                        name = prefix + "base_model.model." + module;
      visit(test::slot_of(model.pool(), "lora." + module + ".a"), expected.at(name + ".lora_A.weight"));
      const Tensor bt = transposed(expected.at(name + ".lora_B.weight"));
      visit(test::slot_of(model.pool(), "lora." + module + ".bt"), bt.view());
    }
  };
  for_each_matrix("initial.", [](TensorView ours, const ConstView& theirs) {
    std::memcpy(ours.mutable_data(), theirs.data, static_cast<size_t>(ours.bytes()));
  });
  expect_losses(model, expected, {.lr = 5e-3f});
  for_each_matrix(
      "final.", [](TensorView ours, const ConstView& theirs) { EXPECT_LE(test::relative_error(ours, theirs), 1e-5); });
}

TEST_P(GoldenRun, TrainingEveryWeightFollowsTransformers) {
  const auto expected = SafetensorsReader::open(golden("full_finetune") / "golden.safetensors");
  Model::Settings settings;
  settings.model.path = golden("full_finetune");
  settings.max_position = 64;
  settings.train_base = true;
  Model model(settings);
  expect_losses(model, expected, {.lr = 5e-3f, .weight_decay = 0.1f});  // the run decayed norms and embedding too
  for (const TrainableSlot& slot : model.pool().trainable().slots)
    EXPECT_LE(test::relative_error(test::slot_of(model.pool(), slot.name), expected.at("final." + slot.name)), 1e-5)
        << slot.name;
}

INSTANTIATE_TEST_SUITE_P(Backends, GoldenRun, testing::Values("reference", "cpu"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tessera
