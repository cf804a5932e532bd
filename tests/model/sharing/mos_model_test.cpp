// A model adapted by mixture of shards: what is assembled from the pools, where gradients go, exactness. Its training
// is tested in tests/train.

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "model/sharing/mos_configs.h"

namespace tessera {
namespace {

using test::layers_of;
using test::mos;
using test::OwnContext;
using test::slot_of;

const std::vector<int32_t> kText = {3, 14, 1, 5, 9, 2, 6, 5, 3, 5};
const char* const kPoolA = "mos.self_attn.q_proj.pool_a";
const char* const kPoolB = "mos.self_attn.q_proj.pool_b";

class MosModel : public testing::Test {
 protected:
  std::unique_ptr<Model> load(const AdapterConfig& adapter, const test::TinyConfig& config = {.layers = 5}) {
    Model::Settings settings = test::tiny_settings(folder_.path(), config);
    settings.adapter = adapter;
    auto model = std::make_unique<Model>(settings);
    model->assemble(own_.ctx);
    return model;
  }
  static const BoundAdapter::Matrices& matrices(Model& model, int layer, int BlockWeights::*which = &BlockWeights::q) {
    return model.bound_adapter()->deltas(model.decoder().block_weights(layer).*which).front();
  }
  static const std::vector<int32_t>& table(Model& model, int layer, int side) {
    const LowRank& delta = model.bound_adapter()->weights().by_weight[model.decoder().block_weights(layer).q].front();
    return dynamic_cast<const ShardView&>(side == 0 ? *delta.a : *delta.bt).table();
  }
  /// scale · (x Aᵀ) Bt of every layer's q_proj for one fixed x.
  std::vector<std::vector<float>> deltas(Model& model) {
    model.assemble(own_.ctx);
    std::vector<std::vector<float>> all;
    for (int layer = 0; layer < model.decoder().num_layers(); ++layer) {
      const auto& m = matrices(model, layer);
      std::vector<float> y(static_cast<size_t>(m.bt.cols()), 0.0f);
      for (int64_t j = 0; j < m.a.rows(); ++j) {
        float u = 0;
        for (int64_t c = 0; c < m.a.cols(); ++c) u += m.a.row<float>(j)[c] * static_cast<float>(c + 1);
        for (int64_t c = 0; c < m.bt.cols(); ++c) y[c] += m.scale * u * m.bt.row<float>(j)[c];
      }
      all.push_back(std::move(y));
    }
    return all;
  }
  std::set<int> changed_layers(Model& model, const std::vector<std::vector<float>>& before) {
    const auto after = deltas(model);
    std::set<int> changed;
    for (size_t layer = 0; layer < before.size(); ++layer)
      if (before[layer] != after[layer]) changed.insert(static_cast<int>(layer));
    return changed;
  }

  test::TemporaryFolder folder_;
  OwnContext own_;
};

TEST_F(MosModel, AssemblesEveryVectorFromTheRowsOfItsTable) {
  const auto model = load(mos(2, 5, 1, 4));
  test::fill_integers(slot_of(model->pool(), kPoolA), 1, 1000);
  test::fill_integers(slot_of(model->pool(), kPoolB), 2, 1000);
  model->assemble(own_.ctx);
  for (int layer = 0; layer < 5; ++layer)
    for (const int side : {0, 1}) {
      const ConstView pool = slot_of(model->pool(), side == 0 ? kPoolA : kPoolB),
                      w = side == 0 ? matrices(*model, layer).a : matrices(*model, layer).bt;
      const auto& index = table(*model, layer, side);
      ASSERT_EQ(w.shape[0], 5);
      for (int64_t j = 0; j < 5; ++j)
        for (int64_t c = 0; c < w.cols(); ++c)
          ASSERT_EQ(w.row<float>(j)[c], pool.row<float>(index[j * 4 + c / pool.cols()])[c % pool.cols()]);
    }
}

TEST_F(MosModel, CollectsGradientsExactlyWhereItReads) {
  const auto model = load(mos(2, 5, 1, 4));
  std::map<std::string, std::vector<float>> expected;
  for (const char* name : {kPoolA, kPoolB}) expected[name].assign(slot_of(model->pool(), name).shape.count(), 0.0f);
  for (const int pass : {0, 1})  // two micro-batches' worth: the collected gradients are cleared in between
    for (int layer = 0; layer < 5; ++layer) {
      const auto& m = matrices(*model, layer);
      test::fill_integers(m.da, 10 * layer + pass);
      test::fill_integers(m.dbt, 10 * layer + pass + 5);
      for (const int side : {0, 1}) {
        const ConstView dw = side == 0 ? m.da : m.dbt;
        const int64_t width = dw.cols() / 4;
        for (int64_t j = 0; j < 5; ++j)
          for (int64_t c = 0; c < dw.cols(); ++c)
            expected[side == 0 ? kPoolA : kPoolB][table(*model, layer, side)[j * 4 + c / width] * width + c % width] +=
                dw.row<float>(j)[c];
      }
      if (layer == 4) model->bound_adapter()->finish_backward(own_.ctx);
    }
  for (const auto& [name, sums] : expected) {
    const auto grads = slot_of(model->pool(), name, true).as<float>();
    EXPECT_EQ(std::vector<float>(grads.begin(), grads.end()), sums) << name;
  }
}

TEST_F(MosModel, APublicRowMovesExactlyTheLayersThatReadItAndAPrivateRowOne) {
  const auto model = load(mos(2, 5, 1, 4));
  test::fill_integers(slot_of(model->pool(), kPoolA), 1);
  test::fill_integers(slot_of(model->pool(), kPoolB), 2);
  for (float& x : slot_of(model->pool(), kPoolB).as<float>()) x = std::abs(x) + 1;  // no column of B is zero
  std::set<size_t> sizes;
  const MosShape shape = mos_shape(mos(2, 5, 1, 4), 5, "");
  for (int32_t row = 0; row < shape.rows(); ++row) {
    const auto before = deltas(*model);
    std::set<int> readers;
    for (int layer = 0; layer < 5; ++layer)
      if (const auto& t = table(*model, layer, 0); std::find(t.begin(), t.end(), row) != t.end()) readers.insert(layer);
    slot_of(model->pool(), kPoolA).row<float>(row)[0] += 1;
    EXPECT_EQ(changed_layers(*model, before), readers) << "row " << row;
    if (row >= shape.public_rows()) {
      EXPECT_EQ(readers.size(), 1u);
    } else {
      sizes.insert(readers.size());
    }
  }
  EXPECT_GT(*sizes.rbegin(), 1u);  // something is shared
}

TEST_F(MosModel, PureSharingGivesEveryLayerTheSameMatricesAndSubsetSelectionNone) {
  AdapterConfig pure = mos(1, {}, {}, 1);
  pure.draw = "pure";
  const auto same = load(pure);
  const auto different = load(mos(1, 4, 0, 1));
  for (int i = 0; i < 5; ++i)
    for (int j = 0; j < i; ++j) {
      EXPECT_TRUE(test::same_bytes(matrices(*same, i).a, matrices(*same, j).a));
      EXPECT_FALSE(test::same_bytes(matrices(*different, i).a, matrices(*different, j).a));
    }
  EXPECT_EQ(matrices(*same, 0).a.shape[0], 5);  // r = e L
}

TEST_F(MosModel, AtTheStartComputesTheBaseModelBitForBit) {
  const auto base = load({});
  const auto adapted = load(mos(2));
  EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, *base, kText), test::logits_of(own_.ctx, *adapted, kText)));
  for (const float b : slot_of(adapted->pool(), kPoolB).as<float>()) ASSERT_EQ(b, 0.0f);
  test::fill_normal(slot_of(adapted->pool(), kPoolB), 3, 0.1);
  adapted->assemble(own_.ctx);
  EXPECT_FALSE(test::same_bytes(test::logits_of(own_.ctx, *base, kText), test::logits_of(own_.ctx, *adapted, kText)));
}

TEST_F(MosModel, DrawsAFromTheBoundOfTheWholeInputWhateverTheShards) {
  for (const int64_t l : {1, 8}) {
    ParameterPool pool;
    make_adapter(mos(2, 4, 1, l), "")->attach(layers_of(4, 8, 4096), pool);
    pool.allocate(3);
    double squares = 0, largest = 0;
    const auto values = slot_of(pool, kPoolA).as<float>();
    for (const float x : values) {
      squares += static_cast<double>(x) * x;
      largest = std::max(largest, std::abs(static_cast<double>(x)));
    }
    EXPECT_LE(largest, 1 / std::sqrt(4096.0));
    const double expected = 1 / std::sqrt(3 * 4096.0);
    EXPECT_NEAR(std::sqrt(squares / static_cast<double>(values.size())), expected, 0.02 * expected);
  }
}

TEST_F(MosModel, DoublingTheRankWithZeroBInTheNewHalfHalvesTheDelta) {
  const auto narrow = load(mos(2, 4, 0, 4)), wide = load(mos(2, 8, 0, 4));
  const int layer = 2;
  for (const int side : {0, 1}) {  // the first half of the wide table is the narrow one
    const auto &small = table(*narrow, layer, side), &large = table(*wide, layer, side);
    ASSERT_TRUE(std::equal(small.begin(), small.end(), large.begin()));
  }
  for (Model* model : {narrow.get(), wide.get()}) {
    test::fill_integers(slot_of(model->pool(), kPoolA), 1);
    const TensorView b = slot_of(model->pool(), kPoolB);
    test::fill_integers(b, 2);
    for (const int32_t row : table(*wide, layer, 1)) {  // zero where only the new half reads
      const auto& half = table(*narrow, layer, 1);
      if (std::find(half.begin(), half.end(), row) == half.end()) std::fill_n(b.row<float>(row), b.cols(), 0.0f);
    }
  }
  const auto full = deltas(*narrow)[layer], halved = deltas(*wide)[layer];
  EXPECT_NE(full, std::vector<float>(full.size(), 0.0f));
  for (size_t c = 0; c < full.size(); ++c) EXPECT_EQ(full[c], 2 * halved[c]);
}

TEST_F(MosModel, NamesPoolRowAndLayersOfABrokenNumber) {
  const auto model = load(mos(2, 5, 1, 4));
  const MosShape shape = mos_shape(mos(2, 5, 1, 4), 5, "");
  const int64_t width = slot_of(model->pool(), kPoolA).cols(),
                row = shape.public_rows() + 3 * 4 + 1;  // private to layer 3
  EXPECT_EQ(model->adapter()->readers(kPoolA, row * width + 2),
            fmt::format("pool mos.self_attn.q_proj.pool_a row {}, read by layers 3", row));
  std::string layers;
  for (int layer = 0; layer < 5; ++layer)
    if (const auto& t = table(*model, layer, 1); std::find(t.begin(), t.end(), 0) != t.end())
      layers += fmt::format("{}{}", layers.empty() ? "" : ", ", layer);
  EXPECT_EQ(model->adapter()->readers(kPoolB, 0),
            fmt::format("pool mos.self_attn.q_proj.pool_b row 0, read by layers {}", layers));
}

TEST_F(MosModel, DescribesItselfByEverythingThatMakesItsTables) {
  const Json seven = load(mos(2, 5, 1, 4))->adapter()->descriptor();
  AdapterConfig other_seed = mos(2, 5, 1, 4);
  other_seed.index_seed = 1;
  const Json other = load(other_seed)->adapter()->descriptor();
  EXPECT_EQ(
      seven.at("types").dump(),
      R"(["mlp.down_proj","mlp.gate_proj","mlp.up_proj","self_attn.k_proj","self_attn.o_proj","self_attn.q_proj","self_attn.v_proj"])");
  EXPECT_EQ(seven.at("rank").as_integer(), 5);
  ASSERT_EQ(seven.at("tables").items().size(), 7u * 5 * 2);
  for (size_t i = 0; i < 70; ++i) EXPECT_NE(seven.at("tables").items()[i].dump(), other.at("tables").items()[i].dump());
}

}  // namespace
}  // namespace tessera
