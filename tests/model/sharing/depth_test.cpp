// Depth sharing: which layer reads which block, what is counted, what is refused. Its gradients: tests/train.

#include "model/sharing/depth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "core/error.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

using test::OwnContext;
using testing::ElementsAre;

constexpr int64_t kHidden = 16, kVocabulary = 23, kLayers = 5;
constexpr int64_t kBlock = kHidden * (16 + 8 + 8 + 16) + 3 * 20 * kHidden;  // the linears of a layer
constexpr int64_t kOutside = 2 * kVocabulary * kHidden + kHidden, kNorms = 2 * kHidden;

SharingConfig depth(std::optional<int64_t> blocks, double compression = 10) {
  SharingConfig config;
  config.method = "depth";
  config.blocks = blocks;
  config.compression = compression;
  return config;
}

class Depth : public testing::Test {
 protected:
  std::unique_ptr<Model> load(const SharingConfig& sharing, const std::filesystem::path& source = {}) {
    Model::Settings settings = test::tiny_settings(folder_.path(), {.layers = kLayers});
    settings.sharing = sharing;
    settings.train_base = true;
    settings.where_sharing = "recipe.toml:7:1";
    if (!source.empty()) {
      settings.model.path = source;
      settings.model.init = "pretrained";
    }
    return std::make_unique<Model>(settings);
  }
  std::string fault(const SharingConfig& sharing, const std::filesystem::path& source = {}) {
    try {
      load(sharing, source);
    } catch (const UserError& error) {
      return error.message();
    }
    return "nothing was thrown";
  }
  /// For each layer the first layer that reads the same gate_proj.
  static std::vector<int> first_readers(Model& model) {
    std::vector<int> readers;
    std::vector<const void*> seen;
    for (int layer = 0; layer < model.decoder().num_layers(); ++layer) {
      const void* at = model.decoder().weight(model.decoder().block_weights(layer).gate)->direct({&model.pool()}).data;
      const auto found = std::find(seen.begin(), seen.end(), at);
      readers.push_back(static_cast<int>(found - seen.begin()));
      seen.push_back(at);
    }
    return readers;
  }
  test::TemporaryFolder folder_;
  OwnContext own_;
};

TEST_F(Depth, NeighbouringLayersReadOneBlock) {
  EXPECT_THAT(first_readers(*load(depth(1))), ElementsAre(0, 0, 0, 0, 0));
  EXPECT_THAT(first_readers(*load(depth(2))), ElementsAre(0, 0, 0, 3, 3));
  EXPECT_THAT(first_readers(*load(depth(3))), ElementsAre(0, 0, 2, 2, 4));
  EXPECT_THAT(first_readers(*load(depth(5))), ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(Depth, TheBlocksAreTheLayersOverTheCompressionWhenTheyAreNotGiven) {
  EXPECT_EQ(depth_blocks(depth({}, 1), 6, ""), 6);
  EXPECT_EQ(depth_blocks(depth({}, 2.5), 6, ""), 2);
  EXPECT_EQ(depth_blocks(depth({}, 1000), 6, ""), 1);
  EXPECT_EQ(depth_blocks(depth({}, 0.5), 6, ""), 6);
  EXPECT_EQ(depth_blocks(depth(4, 1000), 6, ""), 4);
}

TEST_F(Depth, CountsEachBlockOnceAndEveryLayersNorms) {
  for (const int64_t blocks : {1, 2, 5}) {
    const auto model = load(depth(blocks));
    EXPECT_EQ(model->pool().trainable_count(), blocks * kBlock + kLayers * kNorms + kOutside);
    EXPECT_EQ(model->virtual_parameters(), kLayers * (kBlock + kNorms) + kOutside);
  }
  EXPECT_THAT(load(depth(2))->notes(),
              ElementsAre(fmt::format("depth: 5 layers read 2 blocks: {} numbers in all, {:.4g}x fewer than weights",
                                      2 * kBlock + kLayers * kNorms + kOutside,
                                      static_cast<double>(kLayers * (kBlock + kNorms) + kOutside) /
                                          static_cast<double>(2 * kBlock + kLayers * kNorms + kOutside))));
}

TEST_F(Depth, AllReadersOfABlockAddToItsGradientExactly) {
  const auto model = load(depth(2));
  ParameterPool& pool = model->pool();
  const auto view = [&](int layer) { return model->decoder().weight(model->decoder().block_weights(layer).down); };
  Tensor sum(view(0)->shape(), DType::f32), v(view(0)->shape(), DType::f32);
  pool.zero_grads();
  for (const int layer : {2, 1, 0}) {
    test::fill_integers(v, static_cast<uint32_t>(layer));
    view(layer)->scatter_add(own_.ctx, v.view(), pool);
    for (int64_t i = 0; i < v.shape().count(); ++i)
      sum.as<float>()[static_cast<size_t>(i)] += v.as<float>()[static_cast<size_t>(i)];
  }
  test::fill_integers(v, 9);
  view(3)->scatter_add(own_.ctx, v.view(), pool);
  EXPECT_TRUE(test::same_bytes(test::slot_of(pool, "model.layers.0.mlp.down_proj.weight", true), sum.view()));
  EXPECT_TRUE(test::same_bytes(test::slot_of(pool, "model.layers.3.mlp.down_proj.weight", true), v.view()));
}

TEST_F(Depth, OfAsManyBlocksAsLayersIsTheOrdinaryModel) {
  const std::vector<int32_t> text = {3, 14, 1, 5, 9, 2, 6};
  const auto plain = load({}), same = load(depth(5)), fewer = load(depth(4));
  EXPECT_TRUE(test::same_bytes(plain->pool().trainable().values, same->pool().trainable().values));
  EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, *plain, text), test::logits_of(own_.ctx, *same, text)));
  EXPECT_FALSE(test::same_bytes(test::logits_of(own_.ctx, *plain, text), test::logits_of(own_.ctx, *fewer, text)));
}

TEST_F(Depth, TellsWhichLayersReadAnElement) {
  const auto model = load(depth(2));
  EXPECT_EQ(model->readers("model.layers.0.mlp.up_proj.weight", 3),
            "weight model.layers.0.mlp.up_proj.weight element 3, read by layers 0 to 2");
  EXPECT_EQ(model->readers("model.layers.1.input_layernorm.weight", 3),
            "weight model.layers.1.input_layernorm.weight element 3");
}

TEST_F(Depth, IsSavedAndReadBackAndRefusedWithOtherBlocks) {
  const auto model = load(depth(2));
  test::fill_all_normal(model->pool(), 7, 0.3);
  save_sharing(folder_ / "saved", *model);
  SharingConfig sharing = depth(2);
  sharing.load = folder_ / "saved";
  EXPECT_TRUE(test::same_bytes(load(sharing)->pool().trainable().values, model->pool().trainable().values));
  sharing.blocks = 3;
  EXPECT_THAT(fault(sharing), testing::HasSubstr("blocks"));
}

TEST_F(Depth, NamesWhatItCannotDo) {
  EXPECT_EQ(fault(depth(6)), "depth: 6 blocks for 5 layers");
  Model::Settings frozen = test::tiny_settings(folder_.path(), {.layers = kLayers});
  frozen.sharing = depth(2);
  frozen.train_base = true;
  frozen.freeze = {"layers.1.mlp.up_proj"};
  try {
    Model model(frozen);
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_EQ(error.message(),
              "depth: of 'model.layers.0.mlp.up_proj.weight' and 'model.layers.1.mlp.up_proj.weight', which are one, "
              "train.freeze names one");
  }
}

TEST_F(Depth, TakesStoredWeightsOnlyWhereNoLayerIsShared) {
  const auto plain = load({});
  std::filesystem::create_directory(folder_ / "dense");
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const TrainableSlot& slot : plain->pool().trainable().slots)
    tensors.emplace_back(slot.name, test::slot_of(plain->pool(), slot.name));
  write_safetensors(folder_ / "dense" / "model.safetensors", tensors);
  std::filesystem::copy_file(folder_ / "config.json", folder_ / "dense" / "config.json");
  EXPECT_EQ(fault(depth(2), folder_ / "dense"),
            "depth: starts from random weights: stored ones differ from layer to layer");
  EXPECT_TRUE(
      test::same_bytes(load(depth(5), folder_ / "dense")->pool().trainable().values, plain->pool().trainable().values));
}

}  // namespace
}  // namespace tessera
