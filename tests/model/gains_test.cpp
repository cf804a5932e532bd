// Gains and biases of linears: their gradients, what they are of other weights, and that groups read their own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "model/linear.h"
#include "support/gradcheck.h"
#include "support/loose_decoder.h"

namespace tessera {
namespace {

using test::LooseDecoder;
using test::LooseOptions;
using test::OwnContext;
using test::same_bytes;
using test::Trained;

struct Case {
  const char* name;
  LooseOptions options;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class GainsAndBiases : public testing::TestWithParam<Case> {};

TEST_P(GainsAndBiases, GradientsAreTheLossesDerivatives) {
  LooseOptions options = GetParam().options;
  options.compute = DType::f64;
  LooseDecoder model(options);
  OwnContext own("reference");
  const RowGroup group{0, model.tokens(), model.adapter.get()};
  for (const Keep keep : {Keep::everything, Keep::inputs}) {
    model.pool.zero_grads();
    model.train(own.ctx, {&group, 1}, keep);
    int checked = 0;
    for (const TrainableSlot& slot : model.pool.trainable().slots) {
      if (slot.name == "model.norm.weight" || slot.name == "lm_head.weight") continue;  // behind the blocks
      ++checked;
      EXPECT_LE(test::gradient_error(
                    test::slot_of(model.pool, slot.name).as<double>(),
                    test::slot_of(model.pool, slot.name, true).as<double>(),
                    [&] {
                      return model.loss(own.ctx, {&group, 1});
                    },
                    4),
                1e-6)
          << slot.name;
    }
    EXPECT_GE(checked, 21);
  }
}

INSTANTIATE_TEST_SUITE_P(Of, GainsAndBiases,
                         testing::Values(Case{"Biases", {.biases = true}}, Case{"Gains", {.gains = true}},
                                         Case{"GainsOfFrozenWeights", {.trained = Trained::gains, .gains = true}},
                                         Case{"FrozenGainsUnderAnAdapter",
                                              {.trained = Trained::nothing, .gains = true, .adapter = true}},
                                         Case{"All", {.gains = true, .biases = true, .adapter = true}}),
                         [](const auto& info) { return info.param.name; });

WeightSpec spec_of(const char* name, Role role, Shape shape) {
  return {.name = name, .type = "", .role = role, .shape = shape, .init = {}, .storage = name};
}

/// A linear of its own: y = gain · (x wᵀ) + bias + beta · y.
struct Alone {
  explicit Alone(bool has_gain, bool has_bias, DType gain_storage = DType::f32) {
    const Shape shape{5, 7};
    std::vector<WeightSpec> specs{spec_of("w", Role::linear, shape), spec_of("b", Role::bias, {5})};
    const SlotId w = pool.reserve("w", {.shape = shape, .init = {Init::Kind::normal, 1, {}}});
    const SlotId b = pool.reserve("b", {.shape = {5}, .init = {Init::Kind::normal, 1, {}}});
    std::vector<Weight> list{{std::make_shared<SliceView>(pool, w, shape)},
                             {std::make_shared<SliceView>(pool, b, Shape{5})}};
    if (has_gain) {
      const SlotId g = pool.reserve("g", {.shape = {5},
                                          .trainable = gain_storage == DType::f32,
                                          .init = {Init::Kind::normal, 1, {}},
                                          .storage = gain_storage});
      list[0].gain = gain = std::make_shared<SliceView>(pool, g, Shape{5});
    }
    pool.allocate(1);
    weights = std::make_unique<WeightSet>(specs, list, DType::f32);
    bias = has_bias ? 1 : kAbsent;
  }
  Tensor forward(const Context& ctx, ConstView x, double beta, TensorView y) const {
    const RowGroup group{0, x.rows()};
    const std::vector<int32_t> ids(static_cast<size_t>(x.rows()), 0);
    const TokenBatch batch{ids, ids, {}, {}, {&group, 1}};
    const Pass pass{ctx, batch, {&pool}};
    linear(pass, *weights, {0, bias}, x, beta, y, {});
    Tensor result(y.shape, DType::f32);
    convert(ctx, y, result);
    return result;
  }
  ParameterPool pool;
  std::unique_ptr<WeightSet> weights;
  ViewPtr gain;
  int bias;
};

TEST(Gain, ScalesTheProductAndNeitherBiasNorWhatWasThere) {
  OwnContext own;
  Tensor x({6, 7}, DType::f32), start({6, 5}, DType::f32);
  test::fill_normal(x, 1, 1);
  test::fill_normal(start, 2, 1);
  for (const DType storage : {DType::f32, DType::bf16, DType::f16})
    for (const double beta : {0.0, 1.0}) {
      const Alone plain(false, false), both(true, true, storage);
      Tensor product({6, 5}, DType::f32), y({6, 5}, DType::f32), gains({5}, DType::f32);
      plain.forward(own.ctx, x.view(), 0, product);
      convert(own.ctx, start.view(), y);
      both.forward(own.ctx, x.view(), beta, y);
      both.gain->gather(own.ctx, {&both.pool}, gains);
      const auto bias = test::slot_of(const_cast<ParameterPool&>(both.pool), "b").as<float>();
      for (int64_t r = 0; r < 6; ++r)
        for (int64_t c = 0; c < 5; ++c) {
          const double want =
              gains.as<float>()[c] * product.view().row<float>(r)[c] + bias[c] + beta * start.view().row<float>(r)[c];
          EXPECT_NEAR(y.view().row<float>(r)[c], want, 1e-5);
        }
    }
}

TEST(Gain, OfOneIsTheProductsBitsWhereThatIsAssigned) {
  OwnContext own;
  const Alone plain(false, true);
  Alone gained(true, true);
  for (float& g : test::slot_of(gained.pool, "g").as<float>()) g = 1;
  Tensor x({9, 7}, DType::f32), y({9, 5}, DType::f32);
  test::fill_normal(x, 1, 1);
  const Tensor expected = plain.forward(own.ctx, x.view(), 0, y);
  EXPECT_TRUE(same_bytes(gained.forward(own.ctx, x.view(), 0, y).view(), expected.view()));
}

TEST(Gain, BelongsToALinearAndHasItsRows) {
  ParameterPool pool;
  const SlotId slot = pool.reserve("s", {.shape = {4}, .init = {}});
  const auto view = std::make_shared<SliceView>(pool, slot, Shape{4});
  const WeightSpec norm = spec_of("n", Role::norm, {4});
  EXPECT_THROW(WeightSet({norm}, {{view, view}}, DType::f32), InternalError);
  const auto matrix = std::make_shared<SliceView>(pool, slot, Shape{2, 2});
  const WeightSpec linear = spec_of("w", Role::linear, {2, 2});
  EXPECT_THROW(WeightSet({linear}, {{matrix, view}}, DType::f32), InternalError);
}

TEST(GroupsOfRows, ReadTheirOwnGainsAndBiases) {
  for (const Trained trained : {Trained::everything, Trained::gains}) {
    LooseDecoder model({.trained = trained, .gains = true, .biases = true});
    expect_groups_read_their_own(model);
  }
}

TEST(Biases, AreNotDecayedAndNoLinears) {
  LooseDecoder model({.biases = true});
  int biases = 0;
  for (const TrainableSlot& slot : model.pool.trainable().slots)
    if (slot.name.ends_with(".bias")) {
      ++biases;
      EXPECT_FALSE(slot.weight_decay);
    }
  EXPECT_EQ(biases, 9);
  EXPECT_EQ(model.decoder->block_weights(1).q_bias, model.decoder->block_weights(1).q + 1);
  EXPECT_EQ(model.decoder->block_weights(1).k_bias, model.decoder->block_weights(1).k + 1);
}

TEST(Parts, OfLlamaKeepTheirNumbers) {
  LooseDecoder model({});
  for (int layer = 0; layer < 3; ++layer) {
    const BlockWeights& w = model.decoder->block_weights(layer);
    const int first = 1 + 9 * layer;
    EXPECT_THAT((std::vector{w.input_norm, w.q, w.k, w.v, w.o, w.mlp_norm, w.gate, w.up, w.down}),
                testing::ElementsAre(first, first + 1, first + 2, first + 3, first + 4, first + 5, first + 6, first + 7,
                                     first + 8));
    EXPECT_THAT((std::vector{w.q_bias, w.k_bias, w.v_bias}), testing::Each(kAbsent));
  }
  EXPECT_EQ(model.decoder->specs().front().part, Part::embedding);
  EXPECT_EQ(model.decoder->specs()[28].part, Part::final_norm);
  EXPECT_EQ(model.decoder->specs()[29].part, Part::head);
}

}  // namespace
}  // namespace tessera
