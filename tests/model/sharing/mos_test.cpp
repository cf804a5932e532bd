// Mixture of shards as a recipe asks for it: budget, defaults, pools, and what is refused.

#include "model/sharing/mos.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "core/error.h"
#include "model/sharing/mos_configs.h"

namespace tessera {
namespace {

using test::layers_of;
using test::linear_spec;
using test::mos;
using testing::ElementsAre;

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

TEST(MosErrors, OfAPoolThatIsTooSmallNameValuesThatWork) {
  for (const int64_t rank : {8, 40, 127}) {
    for (const std::optional<int64_t> own : {std::optional<int64_t>(), std::optional<int64_t>(1)}) {
      AdapterConfig config = mos(2, rank);
      config.private_rank = own;
      std::string hint;
      try {
        mos_shape(config, 3, "a.toml:1:1");
      } catch (const UserError& error) {
        hint = error.hint();
      }
      int64_t most = 0, least = 0;
      ASSERT_EQ(std::sscanf(hint.c_str(), "set adapter.rank to %ld at most, or adapter.equivalent_rank to %ld at least",
                            &most, &least),
                2)
          << hint;
      AdapterConfig lower = config, higher = config;
      lower.rank = most;
      higher.equivalent_rank = least;
      EXPECT_NO_THROW(mos_shape(lower, 3, "a.toml:1:1"));
      EXPECT_NO_THROW(mos_shape(higher, 3, "a.toml:1:1"));
      lower.rank = most + 1;
      EXPECT_THROW(mos_shape(lower, 3, "a.toml:1:1"), UserError);
    }
  }
}

TEST(MosErrors, NameTheValueAndOneThatWorks) {
  EXPECT_EQ(fault(mos(2, 4, 1, 3), layers_of(4, 2048, 2048)),
            "mos: shards=3 does not divide d_in=2048 of q_proj (divisors up to 32: 1,2,4,8,16,32)");
  EXPECT_EQ(fault(mos(2, 4, 1, 5), layers_of(4, 12, 20)),
            "mos: shards=5 does not divide d_out=12 of q_proj (divisors up to 32: 1,2,3,4,6,12)");
  EXPECT_EQ(fault(mos(2, 8, 4), layers_of(4, 16, 16)), "mos: private=4 exceeds equivalent rank e=2");
  EXPECT_EQ(fault(mos(4, 2, 3), layers_of(4, 16, 16)), "mos: r=2 is below private=3");
  EXPECT_EQ(fault(mos(3, 128, 1), layers_of(31, 16, 16)),
            "mos: adapter.rank=128 needs 127 public vectors a layer, and the pool has 62: those of 31 layers with "
            "adapter.equivalent_rank=3 and private_rank=1");
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

}  // namespace
}  // namespace tessera
