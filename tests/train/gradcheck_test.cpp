// The whole decoder in f64: every weight's gradient is the derivative of the loss, with everything switched on. Each
// method as it is by default: every_method_test.cpp.

#include <gtest/gtest.h>

#include "support/batches.h"
#include "support/gradcheck.h"
#include "support/rps.h"
#include "train/backprop.h"

namespace tessera {
namespace {

struct Case {
  std::string name;
  std::string method = "none";  // none: all weights are trained
  int64_t heads = 4, kv_heads = 2;
  bool tied = false;
  double dropout = 0;
  std::string draw = "random";
  int64_t shards = 2;
  std::vector<std::string> targets = {"all"};
  SharingConfig sharing = {};
};

SharingConfig shared(double compression, std::vector<std::string> tensors, const std::string& mapper = "randomfold",
                     const std::string& precond = "D") {
  SharingConfig config = test::rps(compression, std::move(tensors));
  config.mapper = mapper;
  config.precond = precond;
  config.tile_rows = config.tile_cols = 8;
  return config;
}

SharingConfig in_tiles(SharingConfig config) {
  config.layout = "tile";
  return config;
}

class GradCheck : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Model> load() {
    const Case& c = GetParam();
    Model::Settings settings = test::tiny_settings(folder_.path(), {.hidden_size = 12,
                                                                    .intermediate_size = 14,
                                                                    .layers = 2,
                                                                    .heads = c.heads,
                                                                    .kv_heads = c.kv_heads,
                                                                    .tied = c.tied});
    settings.parameters = settings.activations = DType::f64;
    settings.train_base = c.method == "none";
    settings.sharing = c.sharing;
    settings.adapter.method = c.method;
    settings.adapter.rank = c.draw == "pure" ? 4 : 3;
    settings.adapter.shards = c.shards;
    settings.adapter.draw = c.draw;
    settings.adapter.dropout = c.dropout;
    settings.adapter.targets = c.targets;
    settings.adapter.alpha = 5;  // a scale other than 1
    auto model = std::make_unique<Model>(settings);
    for (const TrainableSlot& slot : model->pool().trainable().slots) {
      const TensorView values = test::slot_of(model->pool(), slot.name);
      if (c.method != "none" || slot.name.find("norm") != std::string::npos)
        test::fill_normal(values, static_cast<uint32_t>(slot.begin), 0.4);
      if (slot.name.find("norm") != std::string::npos)
        for (double& w : values.as<double>()) w += 1;
    }
    return model;
  }
  test::TemporaryFolder folder_;
};

TEST_P(GradCheck, OfEveryWeight) {
  const auto model = load();
  test::OwnContext own("reference");
  const PackedBatch batch = test::packed_batch();
  for (const bool checkpointed : {false, true}) {
    const BackpropOptions options{.checkpoint_activations = checkpointed,
                                  .dropout = {.on = true, .seed = 5, .step = 3}};
    const auto loss = [&] {
      model->assemble(own.ctx);
      return score_batch(own.ctx, *model, batch, options.dropout)["nll"];
    };
    model->pool().zero_grads();
    loss();  // assembles
    backprop_batch(own.ctx, *model, batch, options);
    if (model->bound_adapter()) model->bound_adapter()->finish_backward(own.ctx);
    ASSERT_FALSE(model->pool().trainable().slots.empty());
    for (const TrainableSlot& slot : model->pool().trainable().slots)
      EXPECT_LE(test::gradient_error(test::slot_of(model->pool(), slot.name).as<double>(),
                                     test::slot_of(model->pool(), slot.name, true).as<double>(), loss,
                                     slot.name == "rps.pool" ? 50 : 6),
                1e-6)
          << slot.name << (checkpointed ? ", checkpointed" : "");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Decoder, GradCheck,
    testing::Values(
        Case{.name = "AllWeightsTied", .tied = true}, Case{.name = "OneKeyValueHead", .kv_heads = 1},
        Case{.name = "AsManyKeyValueHeads", .heads = 3, .kv_heads = 3},
        Case{.name = "LoraDropoutTied", .method = "lora", .tied = true, .dropout = 0.3},
        Case{.name = "LoraOnSomeTargets", .method = "lora", .dropout = 0.2, .targets = {"v_proj", "down_proj"}},
        Case{.name = "MosDropout", .method = "mos", .dropout = 0.3},
        Case{.name = "MosTiedTablesTiedHead", .method = "mos", .tied = true, .draw = "tied"},
        Case{.name = "MosPure", .method = "mos", .dropout = 0.1, .draw = "pure", .shards = 1},
        Case{.name = "RpsUncompressed", .sharing = shared(1, {"linears", "embedding"})},
        Case{.name = "RpsTiedEmbedding", .tied = true, .sharing = shared(5.7, {"linears", "embedding"})},
        Case{.name = "RpsEmbeddingAndHead", .sharing = shared(40, {"linears", "embedding", "head"})},
        Case{.name = "RpsInTiles", .tied = true, .sharing = in_tiles(shared(4, {"linears", "embedding"}))},
        Case{.name = "RpsWithoutD", .sharing = shared(3.3, {"linears", "embedding"}, "randomfold", "none")},
        Case{.name = "RpsHashed", .tied = true, .sharing = shared(3.3, {"linears", "embedding"}, "hashed")},
        Case{.name = "RpsRoastTiles", .sharing = shared(3.3, {"linears", "embedding"}, "roast-tile", "none")}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tessera
