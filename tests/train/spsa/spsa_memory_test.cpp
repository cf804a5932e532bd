// SPSA's memory is that of inference: no gradients, no activations kept, at most one perturbed matrix at a time.

#include <gtest/gtest.h>

#include "support/tiny_model.h"
#include "train/backprop.h"
#include "train/spsa/prober.h"

namespace tessera {
namespace {

constexpr int64_t kRows = 4, kLength = 48;
constexpr int kThreads = 2;

class SpsaMemory : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Model> make_model(bool gradients, int64_t layers = 3) {
    test::TinyConfig config;
    config.layers = layers;
    config.vocab_size = 301;
    config.hidden_size = 64;
    config.intermediate_size = 160;
    config.head_dim = 16;
    Model::Settings settings = test::tiny_settings(folder_.path(), config);
    settings.adapter.method = GetParam();
    settings.adapter.rank = 2;
    settings.train_base = GetParam() == "none";
    settings.gradients = gradients;
    return std::make_unique<Model>(settings);
  }
  std::unique_ptr<Prober> make_prober(Model& model, int64_t side_by_side = 2) {
    return std::make_unique<Prober>(model, model.bound_adapter() ? Prober::Perturb::copies : Prober::Perturb::layers,
                                    side_by_side);
  }
  test::TemporaryFolder folder_;
};

/// Of the largest weight, in f32: what a perturbed one takes.
int64_t largest_matrix(Model& model) {
  int64_t bytes = 0;
  for (const WeightSpec& spec : model.decoder().specs()) bytes = std::max(bytes, 4 * spec.shape.count());
  return bytes;
}

TEST_P(SpsaMemory, PlansTheArenaOfTwoForwardPassesAndOneMatrix) {
  const auto model = make_model(false);
  const int64_t inference = plan_score_bytes(*model, 2 * kRows, kLength, kThreads);
  const int64_t matrix = GetParam() == "none" ? largest_matrix(*model) : 0;
  const int64_t probe = make_prober(*model)->plan_bytes(kRows, kLength, kThreads);
  EXPECT_LE(probe, inference + matrix);
  EXPECT_LT(3 * probe, 2 * plan_backprop_bytes(*make_model(true, 8), 2 * kRows, kLength, kThreads))
      << "a store of activations grows with the layers";
}

TEST_P(SpsaMemory, DoesNotGrowWithTheLayers) {
  const auto shallow = make_model(false, 2), deep = make_model(false, 12);
  EXPECT_EQ(make_prober(*shallow)->plan_bytes(kRows, kLength, kThreads),
            make_prober(*deep)->plan_bytes(kRows, kLength, kThreads));
}

TEST_P(SpsaMemory, OwnsValuesWithoutGradientsAndAtMostOneCopyAPoint) {
  const auto with = make_model(true), without = make_model(false);
  const int64_t values = without->pool().trainable().values.bytes();
  EXPECT_TRUE(without->pool().trainable().grads.empty());
  EXPECT_EQ(with->pool().owned_bytes() - without->pool().owned_bytes(), values);
  const int64_t copies = make_prober(*without)->owned_bytes();
  const int64_t assembled = without->bound_adapter() ? without->bound_adapter()->assembled_bytes() : 0;
  EXPECT_EQ(copies, GetParam() == "none" ? 0 : 2 * (values + assembled));
}

/// The plan must hold for every batch that is not larger, those whose points fit side by side included.
TEST_P(SpsaMemory, ThePlanBoundsSmallerBatchesToo) {
  const auto model = make_model(false);
  for (const int64_t points : {1, 2, 3}) {
    const auto prober = make_prober(*model, points);
    for (const int64_t rows : {1, 5, 9}) {
      Arena arena(prober->plan_bytes(rows, 64, kThreads));
      const Context ctx{
          .device = {}, .stream = {}, .kernels = kernels_for({}, "cpu"), .scratch = arena, .threads = kThreads};
      const std::vector<Point> at(static_cast<size_t>(points), Point{{.seed = 1, .round = 2}, 1e-3f});
      for (int64_t fewer = 1; fewer <= rows; ++fewer) {
        const PackedBatch batch = widest_batch(fewer, 64, 64);
        ASSERT_NO_THROW(prober->losses(ctx, {&batch, 1}, at)) << points << " points, " << fewer << " of " << rows;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, SpsaMemory, testing::Values("none", "lora", "mos"));

}  // namespace
}  // namespace tessera
