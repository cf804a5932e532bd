// Mixture of shards: tables, budgets, sharing, exactness. The law of the method is tested here, its training in
// tests/train.

#include "model/sharing/mos.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "core/random.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

using test::OwnContext;
using test::slot_of;
using testing::ElementsAre;

AdapterConfig mos(int64_t e, std::optional<int64_t> r = {}, std::optional<int64_t> p = {}, int64_t l = 4) {
  AdapterConfig config;
  config.method = "mos";
  config.equivalent_rank = e;
  config.rank = r;
  config.private_rank = p;
  config.shards = l;
  return config;
}

WeightSpec linear_spec(int layer, const std::string& type, int64_t out, int64_t in) {
  const std::string name = fmt::format("layers.{}.{}.weight", layer, type);
  return {.name = name,
          .type = type,
          .layer = layer,
          .role = Role::linear,
          .shape = {out, in},
          .init = {},
          .storage = name};
}

std::vector<WeightSpec> llama_specs(int64_t hidden, int64_t intermediate, int64_t layers, int64_t heads,
                                    int64_t kv_heads) {
  return weight_specs(parse_model_config(test::to_json({.vocab_size = 32000,
                                                        .hidden_size = hidden,
                                                        .intermediate_size = intermediate,
                                                        .layers = layers,
                                                        .heads = heads,
                                                        .kv_heads = kv_heads,
                                                        .head_dim = hidden / heads}),
                                         "test"));
}

int64_t trained(const AdapterConfig& config, const std::vector<WeightSpec>& specs) {
  ParameterPool pool;
  make_adapter(config, "")->attach(specs, pool);
  return pool.trainable_count();
}

// --- Index tables -------------------------------------------------------------------------------------------------

TEST(MosTables, FollowThePortableGenerator) {
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafull);
  EXPECT_EQ(mix64(1), 0x910a2dec89025cc1ull);
  EXPECT_EQ(hash_key({7, 0, 0, 3}), 0xdc13ad580762ba80ull);
  const MosShape shape{
      .layers = 4, .equivalent_rank = 2, .rank = 3, .private_rank = 0, .shards = 2};  // 16 public rows, 6 entries
  EXPECT_THAT(mos_table(shape, MosDraw::random, 7, 0, 0, 3), ElementsAre(1, 12, 15, 11, 4, 9));
  EXPECT_THAT(mos_table(shape, MosDraw::random, 7, 0, 1, 3), ElementsAre(5, 14, 10, 8, 11, 12));
}

TEST(MosTables, PrivateRowsFollowThePublicOnesAndServeBothSides) {
  const MosShape shape{.layers = 4, .equivalent_rank = 3, .rank = 4, .private_rank = 1, .shards = 2};
  for (const int side : {0, 1}) {
    const auto table = mos_table(shape, MosDraw::random, 5, 2, side, 3);
    ASSERT_EQ(table.size(), 8u);
    EXPECT_THAT((std::vector<int32_t>(table.end() - 2, table.end())), ElementsAre(16 + 6, 16 + 7));
  }
}

TEST(MosTables, NeverReadARowTwiceAndKeepPrivateRowsApart) {
  for (const auto [e, r, p, l, layers] :
       {std::array{2, 8, 1, 4, 8}, std::array{4, 7, 3, 2, 5}, std::array{3, 12, 0, 1, 4}, std::array{2, 2, 2, 8, 6}}) {
    const MosShape shape{.layers = layers, .equivalent_rank = e, .rank = r, .private_rank = p, .shards = l};
    std::set<int32_t> taken;
    for (int64_t k = 0; k < layers; ++k) {
      const auto a = mos_table(shape, MosDraw::random, 1, 0, 0, k), b = mos_table(shape, MosDraw::random, 1, 0, 1, k);
      for (const auto& table : {a, b}) {
        EXPECT_EQ(std::set<int32_t>(table.begin(), table.end()).size(), static_cast<size_t>(r * l));
        for (const int32_t row : table) EXPECT_TRUE(row >= 0 && row < shape.rows());
      }
      EXPECT_EQ(a == b, r == p);
      for (auto row = a.end() - p * l; row != a.end(); ++row) {
        EXPECT_GE(*row, shape.public_rows());
        EXPECT_TRUE(taken.insert(*row).second) << "private row " << *row << " is read by two layers";
      }
      EXPECT_TRUE(std::all_of(a.begin(), a.end() - p * l, [&](int32_t row) { return row < shape.public_rows(); }));
    }
  }
}

TEST(MosTables, DifferByLayerTypeSideAndSeed) {
  const MosShape shape{.layers = 8, .equivalent_rank = 2, .rank = 8, .private_rank = 1, .shards = 4};
  std::set<std::vector<int32_t>> tables;
  for (const uint64_t seed : {0, 1})
    for (const uint64_t type : {0, 1, 2})
      for (const int side : {0, 1})
        for (int64_t k = 0; k < 8; ++k) tables.insert(mos_table(shape, MosDraw::random, seed, type, side, k));
  EXPECT_EQ(tables.size(), 2u * 3 * 2 * 8);
}

TEST(MosTables, OfTheTiedDrawAreOneForBothSides) {
  const MosShape shape{.layers = 3, .equivalent_rank = 2, .rank = 4, .private_rank = 1, .shards = 2};
  EXPECT_EQ(mos_table(shape, MosDraw::tied, 4, 1, 0, 2), mos_table(shape, MosDraw::tied, 4, 1, 1, 2));
  EXPECT_EQ(mos_table(shape, MosDraw::tied, 4, 1, 0, 2), mos_table(shape, MosDraw::random, 4, 1, 0, 2));
}

TEST(MosTables, AreTheIdentityWhenEverythingIsPrivate) {
  const MosShape shape{.layers = 3, .equivalent_rank = 2, .rank = 2, .private_rank = 2, .shards = 4};
  for (int64_t k = 0; k < 3; ++k)
    for (const int side : {0, 1}) {
      const auto table = mos_table(shape, MosDraw::random, 9, 1, side, k);
      for (int64_t j = 0; j < 2; ++j)
        for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(table[j * 4 + i], (k * 2 + j) * 4 + i);
    }
}

TEST(MosTables, LeaveTheExpectedShareOfPublicRowsUnread) {
  const auto share = [](int64_t e, int64_t p, int64_t r) {
    return mos_dead_share({.layers = 32, .equivalent_rank = e, .rank = r, .private_rank = p, .shards = 8});
  };
  EXPECT_NEAR(share(2, 1, 4), 0.043, 5e-4);
  EXPECT_NEAR(share(2, 1, 8), 0.0004, 5e-5);
  EXPECT_NEAR(share(8, 1, 16), 0.109, 5e-4);
  EXPECT_NEAR(share(8, 4, 16), 0.043, 5e-4);
  EXPECT_NEAR(share(8, 1, 32), 0.0085, 5e-5);

  const MosShape shape{.layers = 32, .equivalent_rank = 8, .rank = 16, .private_rank = 1, .shards = 8};
  std::set<int32_t> read;
  for (int64_t k = 0; k < 32; ++k)
    for (const int32_t row : mos_table(shape, MosDraw::random, 0, 0, 0, k))
      if (row < shape.public_rows()) read.insert(row);
  const double unread = 1 - static_cast<double>(read.size()) / static_cast<double>(shape.public_rows());
  EXPECT_NEAR(unread, mos_dead_share(shape), 0.03);  // four deviations of a binomial share of 1792 rows
}

// --- Budget and defaults ------------------------------------------------------------------------------------------

TEST(MosBudget, IsWhatTheAuthorsRunsLogged) {
  const auto llama2_7b = llama_specs(4096, 11008, 32, 32, 32);
  EXPECT_EQ(trained(mos(2), llama2_7b), 4'997'120);
  EXPECT_EQ(trained(mos(8), llama2_7b), 19'988'480);
  EXPECT_EQ(trained(mos(64), llama2_7b), 159'907'840);
  EXPECT_EQ(trained(mos(2), llama_specs(5120, 13824, 40, 40, 40)), 7'823'360);
  EXPECT_EQ(trained(mos(2), llama_specs(4096, 14336, 32, 32, 8)), 5'242'880);
}

TEST(MosBudget, DependsOnTheEquivalentRankOnly) {
  const auto specs = llama_specs(64, 96, 6, 4, 2);
  const int64_t expected = 4 * 6 * ((64 + 64) * 2 + (64 + 32) * 2 + (64 + 96) * 3);
  for (const int64_t l : {1, 2, 4, 8, 16, 32})
    for (const int64_t p : {0, 1, 3})
      for (const int64_t r : {4, 7, 9})
        EXPECT_EQ(trained(mos(4, r, p, l), specs), expected) << "r=" << r << " p=" << p << " l=" << l;
  EXPECT_EQ(trained(mos(4, 4, 4, 2), specs), expected);
  AdapterConfig lora;
  lora.method = "lora";
  lora.rank = 4;
  EXPECT_EQ(trained(lora, specs), expected);
}

TEST(MosShapeTest, HasTheMethodsDefaults) {
  const auto r_and_p = [](int64_t e, int64_t layers, std::optional<int64_t> p = {}) {
    const MosShape shape = mos_shape(mos(e, {}, p), layers, "");
    return std::pair(shape.rank, shape.private_rank);
  };
  EXPECT_EQ(r_and_p(2, 32), std::pair(int64_t{8}, int64_t{1}));
  EXPECT_EQ(r_and_p(8, 32), std::pair(int64_t{32}, int64_t{2}));
  EXPECT_EQ(r_and_p(3, 32), std::pair(int64_t{12}, int64_t{1}));
  EXPECT_EQ(r_and_p(2, 2), std::pair(int64_t{3}, int64_t{1}));      // capped at (e-p) L + p
  EXPECT_EQ(r_and_p(4, 32, 4), std::pair(int64_t{4}, int64_t{4}));  // nothing shared: r = e
}

TEST(MosScale, DividesByTheAssembledRank) {
  AdapterConfig config = mos(2);
  config.alpha = 16;
  EXPECT_EQ(adapter_scale(config, 8), 2.0f);
  EXPECT_EQ(adapter_scale(config, 16), 1.0f);
  config.scale = "rs";
  EXPECT_EQ(adapter_scale(config, 16), 4.0f);
}

// --- What the user is told ----------------------------------------------------------------------------------------

std::string fault(const AdapterConfig& config, const std::vector<WeightSpec>& specs) {
  try {
    ParameterPool pool;
    make_adapter(config, "recipe.toml:7:1")->attach(specs, pool);
  } catch (const UserError& error) {
    EXPECT_EQ(error.where(), "recipe.toml:7:1");
    return error.message();
  }
  return "nothing was thrown";
}

std::vector<WeightSpec> layers_of(int layers, int64_t out, int64_t in) {
  std::vector<WeightSpec> specs;
  for (int k = 0; k < layers; ++k) specs.push_back(linear_spec(k, "self_attn.q_proj", out, in));
  return specs;
}

TEST(MosErrors, NameTheValueAndOneThatWorks) {
  EXPECT_EQ(fault(mos(2, 4, 1, 3), layers_of(4, 2048, 2048)),
            "mos: shards=3 does not divide d_in=2048 of q_proj (divisors up to 32: 1,2,4,8,16,32)");
  EXPECT_EQ(fault(mos(2, 4, 1, 5), layers_of(4, 12, 20)),
            "mos: shards=5 does not divide d_out=12 of q_proj (divisors up to 32: 1,2,3,4,6,12)");
  EXPECT_EQ(fault(mos(2, 8, 4), layers_of(4, 16, 16)), "mos: private=4 exceeds equivalent rank e=2");
  EXPECT_EQ(fault(mos(4, 2, 3), layers_of(4, 16, 16)), "mos: r=2 is below private=3");
  EXPECT_EQ(fault(mos(3, 128, 1), layers_of(31, 16, 16)),
            "mos: r=128 needs 127 public vectors per layer, the pool has 62 (e=3,p=1,L=31): lower r or raise e");
  EXPECT_EQ(fault(mos(2, 4, 2), layers_of(4, 16, 16)),
            "mos: with private=e nothing is shared, so r must equal e (plain LoRA)");
  AdapterConfig wrong_target = mos(2);
  wrong_target.targets = {"q_proj", "qproj"};
  EXPECT_EQ(fault(wrong_target, llama_specs(16, 32, 2, 2, 2)),
            "mos: target 'qproj' matches none of: mlp.down_proj, mlp.gate_proj, mlp.up_proj, self_attn.k_proj, "
            "self_attn.o_proj, self_attn.q_proj, self_attn.v_proj");
  AdapterConfig pure = mos(2, 3, {}, 1);
  pure.draw = "pure";
  EXPECT_EQ(fault(pure, layers_of(4, 16, 16)), "mos: draw=\"pure\" means shards=1, private_rank=0 and rank=e·L=8");
}

TEST(MosErrors, ATypeOfOneLayerWorksWithAWarning) {
  ParameterPool pool;
  const auto adapter = make_adapter(mos(2, 2, 1), "");
  EXPECT_EQ(adapter->attach(layers_of(1, 16, 16), pool).by_weight[0].front().rank(), 2);
  EXPECT_THAT(
      adapter->notes(),
      testing::Contains("warning: mos: self_attn.q_proj occurs in one layer only: nothing is shared across layers"));
}

TEST(MosPools, AreSeparateForEachPathAndShape) {
  std::vector<WeightSpec> specs;
  for (int k = 0; k < 2; ++k) {
    specs.push_back(linear_spec(k, "attn.c_proj", 32, 32));
    specs.push_back(linear_spec(k, "mlp.c_proj", 32, 128));
    specs.push_back(linear_spec(k, "mlp.c_fc", k == 0 ? 128 : 64, 32));
  }
  AdapterConfig config = mos(2, 2, 1);
  config.targets = {"c_proj", "c_fc"};
  ParameterPool pool;
  const AdapterWeights weights = make_adapter(config, "")->attach(specs, pool);
  for (size_t i = 0; i < specs.size(); ++i) {
    EXPECT_EQ(weights.by_weight[i].front().a->shape()[1], specs[i].shape[1]);
    EXPECT_EQ(weights.by_weight[i].front().bt->shape()[1], specs[i].shape[0]);
  }
  pool.allocate(0);
  std::vector<std::string> names;
  for (const TrainableSlot& slot : pool.trainable().slots) names.push_back(slot.name);
  EXPECT_THAT(names, ElementsAre("mos.attn.c_proj.pool_a", "mos.attn.c_proj.pool_b", "mos.mlp.c_fc.32x128.pool_a",
                                 "mos.mlp.c_fc.32x128.pool_b", "mos.mlp.c_fc.32x64.pool_a", "mos.mlp.c_fc.32x64.pool_b",
                                 "mos.mlp.c_proj.pool_a", "mos.mlp.c_proj.pool_b"));
}

// --- A model at work ----------------------------------------------------------------------------------------------

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
