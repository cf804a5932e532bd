// Loss, logits and gradients of small random models against what transformers computed (tests/golden/README.md).

#include <gtest/gtest.h>

#include "kernels/table.h"
#include "support/golden.h"
#include "train/backprop.h"

namespace tessera {
namespace {

using test::golden;

struct Case {
  std::string model, backend;
};

class GoldenModel : public testing::TestWithParam<Case> {
 protected:
  GoldenModel()
      : arena_(64 << 20),
        ctx_{.device = {},
             .stream = {},
             .kernels = kernels_for({}, GetParam().backend),
             .scratch = arena_,
             .threads = 2} {}
  Arena arena_;
  Context ctx_;
};

std::unique_ptr<Model> load(const std::string& name, bool train_base) {
  Model::Settings settings;
  settings.model.path = golden(name);
  settings.train_base = train_base;
  settings.max_position = 64;
  return std::make_unique<Model>(settings);
}

void expect_gradients(Model& model, const SafetensorsReader& expected, const std::string& prefix, double count) {
  const auto& specs = model.decoder().specs();
  int compared = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].storage != specs[i].name) continue;
    const TensorView grad = *model.decoder().weight(static_cast<int>(i))->direct_grad(model.pool());
    for (float& g : grad.as<float>()) g = static_cast<float>(g / count);
    EXPECT_LE(test::relative_error(grad, expected.at(prefix + "grad." + specs[i].name)), 1e-5) << specs[i].name;
    ++compared;
  }
  EXPECT_GT(compared, 10);
}

TEST_P(GoldenModel, LossAndGradientsMatchTransformers) {
  const auto expected = SafetensorsReader::open(golden(GetParam().model) / "golden.safetensors");
  const auto model = load(GetParam().model, true);
  const PackedBatch batch = test::batch_of(expected.at("input_ids"), expected.at("labels"));
  for (const bool checkpointed : {false, true}) {
    model->pool().zero_grads();
    const LossSums sums = backprop_batch(ctx_, *model, batch, {.checkpoint_activations = checkpointed});
    EXPECT_NEAR(sums["nll"] / sums["scored"], element(expected.at("loss"), 0), 1e-5 * element(expected.at("loss"), 0));
    expect_gradients(*model, expected, "", sums["scored"]);
  }
}

TEST_P(GoldenModel, LogitsOfTheMappedModelMatchTransformers) {
  const auto expected = SafetensorsReader::open(golden(GetParam().model) / "golden.safetensors");
  const auto model = load(GetParam().model, false);
  const PackedBatch batch = test::batch_of(expected.at("input_ids"), expected.at("labels"));
  EXPECT_EQ(model->pool().trainable_count(), 0);
  EXPECT_GT(model->pool().frozen_mapped_bytes(), 0);
  const LossSums sums = score_batch(ctx_, *model, batch);
  EXPECT_NEAR(sums["nll"] / sums["scored"], element(expected.at("loss"), 0), 1e-5 * element(expected.at("loss"), 0));
  // argmax of every scored position agrees with the stored logits
  int64_t correct = 0;
  const ConstView logits = expected.at("logits");
  for (size_t t = 0; t < batch.labels.size(); ++t) {
    if (batch.labels[t] < 0) continue;
    const float* row = static_cast<const float*>(logits.data) + static_cast<int64_t>(t) * logits.shape[2];
    correct += std::max_element(row, row + logits.shape[2]) - row == batch.labels[t];
  }
  EXPECT_EQ(sums["correct"], correct);
}

TEST_P(GoldenModel, AFrozenBaseComputesTheSameAdapterFreeLossInEveryBatchSplit) {
  const auto expected = SafetensorsReader::open(golden(GetParam().model) / "golden.safetensors");
  const auto model = load(GetParam().model, false);
  const ConstView ids = expected.at("input_ids"), labels = expected.at("labels");
  LossSums split;
  for (int64_t b = 0; b < ids.shape[0]; ++b)
    split = score_batch(ctx_, *model, test::batch_of(ids.slice_rows(b, b + 1), labels.slice_rows(b, b + 1)), {}, {},
                        std::move(split));
  const LossSums whole = score_batch(ctx_, *model, test::batch_of(ids, labels));
  EXPECT_EQ(split["scored"], whole["scored"]);
  EXPECT_NEAR(split["nll"], whole["nll"], 1e-6 * whole["nll"]);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model :
       {"gqa", "mqa_tied", "mha_odd", "wide_heads", "llama3_rope", "bf16", "f16_tied", "biases", "mistral",
        "mistral_all", "qwen2", "qwen2_windows", "qwen3", "qwen3_windows", "smollm3", "smollm3_list"})
    for (const char* backend : {"reference", "cpu"}) all.push_back({model, backend});
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, GoldenModel, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.model + "_" + info.param.backend; });

class GoldenPacked : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Models, GoldenPacked, testing::Values("gqa", "mistral"),
                         [](const auto& info) { return info.param; });

TEST_P(GoldenPacked, DocumentsOfOneRowNeverSeeEachOther) {
  for (const char* backend : {"reference", "cpu"}) {
    Arena arena(64 << 20);
    const Context ctx{.device = {}, .stream = {}, .kernels = kernels_for({}, backend), .scratch = arena, .threads = 2};
    const auto expected = SafetensorsReader::open(golden(GetParam()) / "packed.safetensors");
    const auto model = load(GetParam(), true);
    const auto lengths = expected.at("packed.document_lengths").as<int32_t>();
    const PackedBatch batch =
        test::batch_of(expected.at("packed.input_ids"), expected.at("packed.labels"), {lengths.begin(), lengths.end()});
    const LossSums sums = backprop_batch(ctx, *model, batch);
    EXPECT_NEAR(sums["nll"] / sums["scored"], element(expected.at("packed.loss"), 0),
                1e-5 * element(expected.at("packed.loss"), 0));
    expect_gradients(*model, expected, "packed.", sums["scored"]);
  }
}

}  // namespace
}  // namespace tessera
