// Gates of blocks and of their halves: the block's own bits at 1, the input's at 0, the derivative of the loss between.

#include "model/gates.h"

#include <gmock/gmock.h>

#include <limits>

#include "core/error.h"
#include "support/gradcheck.h"
#include "support/loose_decoder.h"

namespace tessera {
namespace {

using test::LooseDecoder;
using test::OwnContext;
using test::same_bytes;
using test::Trained;
using Of = BlockGates::Of;

/// One group with these gates.
RowGroup group_of(LooseDecoder& model, Of of, std::span<const double> values) {
  return {0, model.tokens(), model.adapter.get(), nullptr, {of, values}};
}

struct Case {
  const char* name;
  Of of;
  std::vector<double> values;  // of three layers
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class Gates : public testing::TestWithParam<Case> {};

TEST_P(Gates, GradientsAreTheLossesDerivatives) {
  LooseDecoder model({.compute = DType::f64, .gains = true, .biases = true, .adapter = true});
  OwnContext own("reference");
  std::vector<double> values = GetParam().values;
  const RowGroup group = group_of(model, GetParam().of, values);
  const auto loss = [&] { return model.loss(own.ctx, {&group, 1}); };
  for (const Keep keep : {Keep::everything, Keep::inputs}) {
    model.pool.zero_grads();
    std::vector<double> grads(values.size(), 0.0);
    EXPECT_NEAR(model.train(own.ctx, {&group, 1}, keep, grads), loss(), 1e-10);
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i] == 0)
        EXPECT_EQ(grads[i], 0) << "nothing is computed there";
      else
        EXPECT_LE(test::gradient_error({&values[i], 1}, {&grads[i], 1}, loss, 0), 1e-6) << "gate " << i;
    }
    for (const TrainableSlot& slot : model.pool.trainable().slots) {
      const auto gradient = test::slot_of(model.pool, slot.name, true).as<double>();
      if (std::ranges::all_of(gradient, [](double g) { return g == 0; })) {  // behind a gate that is shut
        EXPECT_EQ(test::gradient_error(test::slot_of(model.pool, slot.name).as<double>(), gradient, loss, 3), 0);
        continue;
      }
      EXPECT_LE(test::gradient_error(test::slot_of(model.pool, slot.name).as<double>(), gradient, loss, 3), 1e-6)
          << slot.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Of, Gates,
                         testing::Values(Case{"Blocks", Of::blocks, {0.3, 0.9, 0.01}},
                                         Case{"BlocksAtTheEnds", Of::blocks, {1, 0.4, 1}},
                                         Case{"BlocksOneIsShut", Of::blocks, {0.7, 0, 1}},
                                         Case{"Halves", Of::sublayers, {0.3, 0.9, 0.6, 0.1, 0.5, 0.8}},
                                         Case{"HalvesAtTheEnds", Of::sublayers, {1, 0.2, 0.6, 1, 1, 1}},
                                         Case{"HalvesThatAreShut", Of::sublayers, {0, 0.5, 0.6, 0, 0, 1}}),
                         [](const auto& info) { return info.param.name; });

TEST(GatesOfOne, AreTheUngatedBlocksBits) {
  LooseDecoder model(
      {.gains = true, .adapter = true, .size = {.hidden_size = 36, .intermediate_size = 70, .layers = 3}});
  OwnContext own;
  const RowGroup plain{0, model.tokens(), model.adapter.get()};
  const Tensor expected = model.hidden(own.ctx, {&plain, 1});
  for (const Keep keep : {Keep::everything, Keep::inputs}) {
    model.pool.zero_grads();
    model.train(own.ctx, {&plain, 1}, keep);
    const std::vector<float> gradients(model.pool.trainable().grads.as<float>().begin(),
                                       model.pool.trainable().grads.as<float>().end());
    for (const Of of : {Of::blocks, Of::sublayers}) {
      const std::vector<double> ones(of == Of::blocks ? 3 : 6, 1.0);
      const RowGroup group = group_of(model, of, ones);
      EXPECT_TRUE(same_bytes(model.hidden(own.ctx, {&group, 1}).view(), expected.view()));
      model.pool.zero_grads();
      std::vector<float> gates(ones.size(), 0.0f);
      model.train(own.ctx, {&group, 1}, keep, gates);
      EXPECT_TRUE(same_bytes(model.pool.trainable().grads, ConstView(gradients)));
      EXPECT_THAT(gates, testing::Each(testing::Ne(0.0f)));
    }
  }
}

/// The blocks of some layers on a residual stream of the test's, one group of rows a gate.
void run_blocks(const Context& ctx, LooseDecoder& model, LayerRange layers, Of of,
                const std::vector<std::vector<double>>& gates, TensorView hidden) {
  const auto scope = ctx.scratch.scope();
  const int64_t rows = hidden.rows() / static_cast<int64_t>(gates.size());
  std::vector<RowGroup> groups;
  std::vector<AttentionSegment> segments;
  std::vector<int32_t> positions, ids(static_cast<size_t>(hidden.rows()), 0);
  for (size_t g = 0; g < gates.size(); ++g) {
    const int64_t begin = static_cast<int64_t>(g) * rows;
    groups.push_back({begin, begin + rows, nullptr, nullptr, {of, gates[g]}});
    segments.push_back({begin, begin + rows, begin, begin + rows});
    for (int64_t t = 0; t < rows; ++t) positions.push_back(static_cast<int32_t>(t));
  }
  const TokenBatch batch{ids, positions, {}, segments, groups};
  const Pass pass{ctx, batch, {&model.pool}};
  PackedAttention attention;
  model.decoder->blocks(pass, layers, attention, hidden);
}

Tensor stream(int64_t rows, int64_t cols, uint32_t seed) {
  Tensor values({rows, cols}, DType::f32);
  test::fill_normal(values, seed, 1);
  return values;
}

TEST(GatesOfZero, AreAModelWithoutTheBlockOrHalf) {
  LooseDecoder model({});
  OwnContext own;
  const Tensor gated = stream(7, 16, 1), without = stream(7, 16, 1), halves = stream(7, 16, 1);
  run_blocks(own.ctx, model, {0, 3}, Of::blocks, {{1, 0, 1}}, gated);
  run_blocks(own.ctx, model, {0, 1}, Of::nothing, {{}}, without);
  run_blocks(own.ctx, model, {2, 3}, Of::nothing, {{}}, without);
  EXPECT_TRUE(same_bytes(gated.view(), without.view()));
  run_blocks(own.ctx, model, {0, 3}, Of::sublayers, {{1, 1, 0, 0, 1, 1}}, halves);
  EXPECT_TRUE(same_bytes(halves.view(), without.view()));
}

TEST(GatesOfZero, HandOnMinusZeroInfinitiesAndNaNs) {
  LooseDecoder model({});
  OwnContext own;
  for (const auto& [of, shut, open] :
       {std::tuple(Of::blocks, std::vector<double>{0}, std::vector<double>{0.5}),
        std::tuple(Of::sublayers, std::vector<double>{0, 0}, std::vector<double>{0.5, 1})}) {
    for (const bool alone : {true, false}) {  // beside rows whose gate is open
      const Tensor hidden = stream(12, 16, 2);
      const TensorView rows = hidden.view().slice_rows(6, 12);
      rows.row<float>(0)[3] = -0.0f;
      rows.row<float>(2)[5] = std::numeric_limits<float>::infinity();
      rows.row<float>(4)[0] = std::numeric_limits<float>::quiet_NaN();
      Tensor before({6, 16}, DType::f32);
      std::memcpy(before.view().mutable_data(), rows.data, static_cast<size_t>(rows.bytes()));
      run_blocks(own.ctx, model, {0, 1}, of, {alone ? shut : open, shut}, hidden);
      EXPECT_TRUE(same_bytes(rows, before.view()));
    }
  }
}

TEST(GatesOfGroups, AreEachGroupsOwn) {
  LooseDecoder model({});
  OwnContext own;
  const std::vector<std::vector<double>> gates = {{0.25, 1, 0.75}, {1, 1, 0}, {0.5, 0.125, 1}};
  const Tensor together = stream(18, 16, 3);
  const Tensor apart = stream(18, 16, 3);
  run_blocks(own.ctx, model, {0, 3}, Of::blocks, gates, together);
  for (size_t g = 0; g < gates.size(); ++g)
    run_blocks(own.ctx, model, {0, 3}, Of::blocks, {gates[g]}, apart.view().slice_rows(g * 6, g * 6 + 6));
  for (int64_t i = 0; i < 18 * 16; ++i)
    ASSERT_NEAR(together.as<float>()[i], apart.as<float>()[i], 2e-5 * (1 + std::abs(apart.as<float>()[i])));
  EXPECT_THROW(run_blocks(own.ctx, model, {0, 3}, Of::sublayers, {{1, 1}}, apart), InternalError);
  EXPECT_THROW(run_blocks(own.ctx, model, {0, 3}, Of::blocks, {{1, 1, 1}, {}}, apart), InternalError);
}

TEST(GatesAlone, AreTrainedThroughFrozenWeights) {
  LooseDecoder model({.compute = DType::f64, .trained = Trained::nothing});
  ASSERT_TRUE(model.pool.trainable().slots.empty());
  OwnContext own("reference");
  std::vector<double> values = {0.3, 0.8, 1}, grads(3, 0.0);
  const RowGroup group = group_of(model, Of::blocks, values);
  model.train(own.ctx, {&group, 1}, Keep::inputs, grads);
  EXPECT_LE(test::gradient_error(values, grads, [&] { return model.loss(own.ctx, {&group, 1}); }), 1e-6);
}

TEST(GatesPlan, IsThePeakOfEveryPathButTheShutOne) {
  // So large that the products at the peak are those for which plans foresee scratch.
  LooseDecoder model(
      {.gains = true, .biases = true, .size = {.hidden_size = 96, .intermediate_size = 160, .layers = 3}});
  for (const auto& [of, values] :
       {std::pair(Of::blocks, std::vector<double>{0.5, 0.5, 0.5}), std::pair(Of::blocks, std::vector<double>{1, 1, 1}),
        std::pair(Of::sublayers, std::vector<double>{1, 0.5, 0.5, 1, 1, 1}),
        std::pair(Of::nothing, std::vector<double>{})})
    for (const Keep keep : {Keep::everything, Keep::inputs}) {
      OwnContext real;
      const Compute plan = Compute::counting({}, real.ctx.threads);
      RowGroup group = group_of(model, of, values);
      group.end = model.tokens(30);
      std::vector<float> gates(std::max<size_t>(1, values.size()), 0.0f);
      model.train(plan, {&group, 1}, keep, gates);
      model.train(real.ctx, {&group, 1}, keep, gates);
      EXPECT_EQ(plan.peak_bytes(), real.arena.peak_bytes());
    }
}

}  // namespace
}  // namespace tessera
