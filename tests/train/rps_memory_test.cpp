// The memory of Stable-RPS in training: that of the pool, not of the weights.

#include <gmock/gmock.h>
#include <malloc.h>

#include "core/error.h"
#include "model/sharing/selection.h"
#include "train/rps_training.h"

namespace tessera {
namespace {

using namespace test;

const test::TinyConfig kWide{.vocab_size = 301,
                             .hidden_size = 64,
                             .intermediate_size = 160,
                             .layers = 3,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 16,
                             .tied = true};

TEST_F(RpsTraining, TakesATenthOfTheMemoryOfWeightsGradientsAndMoments) {
  const auto bytes = [&](const SharingConfig& sharing) {
    Model model(settings(sharing, kWide));
    const auto optimizer = make_optimizer(config_.optimizer, model.pool().trainable().values.shape.count());
    return static_cast<double>(model.pool().owned_bytes() + optimizer->state_bytes());
  };
  EXPECT_LE(bytes(rps(10)), 0.12 * bytes({}));
  EXPECT_LE(bytes(rps(1)), 1.01 * bytes({}));
}

#ifdef __GLIBC__
TEST(RpsMemory, ViewsAndPlanKeepNothingAWeight) {
  const auto heap = [] {
    const struct mallinfo2 info = mallinfo2();
    return static_cast<double>(info.uordblks + info.hblkhd);
  };
  std::vector<WeightSpec> specs;
  double count = 0;
  for (int k = 0; k < 16; ++k) {
    specs.push_back(matrix_spec(fmt::format("t{}", k), {1000, 500}, test::normal(k % 2 ? 0.02 : 1)));
    count += 500'000;
  }
  for (const char* layout : {"row", "tile"}) {
    SharingConfig config = rps(100, {"linears"});
    config.layout = layout;
    const double before = heap();
    const BoundBase base(config, specs);
    EXPECT_LT(heap() - before - static_cast<double>(base.pool.owned_bytes()), count / 16) << layout;  // half a bit
  }
}
#endif

TEST_F(RpsTraining, PlansNoMoreScratchThanTheDenseRunAndTwoMatrices) {
  test::TinyConfig deeper = kWide;
  deeper.layers = 8;
  Model dense(settings({}, kWide)), folded(settings(rps(10), kWide)), whole(settings(rps(1), kWide));
  Model deep_dense(settings({}, deeper)), deep(settings(rps(10), deeper));
  int64_t largest = 0;
  for (const WeightSpec& spec : dense.decoder().specs()) largest = std::max(largest, 4 * spec.shape.count());
  const int64_t panels = 2 * 1'200'000;  // of two threads: products of few rows expand their tiles into them
  for (const bool backward : {false, true})
    for (const bool checkpointed : {false, true})
      for (const int64_t rows : {1, 4}) {
        const auto plan = [&](Model& model) {
          return backward ? plan_backprop_bytes(model, rows, 48, 2, {.checkpoint_activations = checkpointed})
                          : plan_score_bytes(model, rows, 48, 2);
        };
        EXPECT_LE(plan(folded), plan(dense) + 2 * largest + panels);
        EXPECT_LE(plan(deep), plan(deep_dense) + 2 * largest + panels) << "no matrix is kept for a layer";
        EXPECT_EQ(plan(whole), plan(dense)) << "read in place";
      }
}

}  // namespace
}  // namespace tessera
