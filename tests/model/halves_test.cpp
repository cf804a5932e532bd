// Blocks without attention or without an MLP: the bits of blocks whose half is shut by a gate.

#include <gtest/gtest.h>

#include "core/error.h"
#include "support/gradcheck.h"
#include "support/loose_decoder.h"

namespace tessera {
namespace {

using test::Half;
using test::LooseDecoder;
using test::LooseOptions;
using test::OwnContext;
using test::QkNorms;
using test::same_bytes;
using Of = BlockGates::Of;

// The middle block has no attention, the last no MLP: then the front block does not stand for all.
const std::vector<std::pair<int, Half>> kMissing = {{1, Half::attention}, {2, Half::mlp}};
const std::vector<double> kShut = {1, 1, 0, 1, 1, 0};

TEST(AbsentHalves, AreThoseOfAShutGate) {
  LooseOptions options{.biases = true, .adapter = true, .norms = QkNorms::heads};
  LooseDecoder whole(options);
  options.missing = kMissing;
  LooseDecoder lacking(options);
  OwnContext own;
  const RowGroup gated{0, whole.tokens(), whole.adapter.get(), nullptr, {Of::sublayers, kShut}};
  const RowGroup plain{0, lacking.tokens(), lacking.adapter.get()};
  EXPECT_TRUE(same_bytes(lacking.hidden(own.ctx, {&plain, 1}).view(), whole.hidden(own.ctx, {&gated, 1}).view()));
  for (const Keep keep : {Keep::everything, Keep::inputs}) {
    whole.pool.zero_grads();
    lacking.pool.zero_grads();
    EXPECT_EQ(whole.train(own.ctx, {&gated, 1}, keep), lacking.train(own.ctx, {&plain, 1}, keep));
    for (const TrainableSlot& slot : lacking.pool.trainable().slots)
      EXPECT_TRUE(same_bytes(test::slot_of(lacking.pool, slot.name, true), test::slot_of(whole.pool, slot.name, true)))
          << slot.name;
  }
  EXPECT_EQ(whole.pool.trainable().slots.size() - lacking.pool.trainable().slots.size(), 10u + 4 + 8 + 6);
}

TEST(AbsentHalves, UnderGatesTheRestHasTheLossesDerivatives) {
  for (const auto& [of, start] :
       {std::pair(Of::blocks, std::vector<double>{1, 0.6, 0.3}), std::pair(Of::blocks, std::vector<double>{0.5, 1, 1}),
        std::pair(Of::sublayers, std::vector<double>{0.4, 1, 0.7, 0.2, 0.9, 0.5})}) {
    LooseDecoder model({.compute = DType::f64, .missing = kMissing});
    OwnContext own("reference");
    std::vector<double> values = start, grads(start.size(), 0.0);
    const RowGroup group{0, model.tokens(), nullptr, nullptr, {of, values}};
    const auto loss = [&] { return model.loss(own.ctx, {&group, 1}); };
    EXPECT_NEAR(model.train(own.ctx, {&group, 1}, Keep::inputs, grads), loss(), 1e-10);
    for (size_t i = 0; i < values.size(); ++i) {
      const bool is_of_nothing = of == Of::sublayers && (i == 2 || i == 5);
      if (is_of_nothing)
        EXPECT_EQ(grads[i], 0) << "gate " << i;
      else
        EXPECT_LE(test::gradient_error({&values[i], 1}, {&grads[i], 1}, loss, 0), 1e-6) << "gate " << i;
    }
    for (const TrainableSlot& slot : model.pool.trainable().slots) {
      if (slot.name == "model.norm.weight" || slot.name == "lm_head.weight") continue;  // behind the blocks
      EXPECT_LE(test::gradient_error(test::slot_of(model.pool, slot.name).as<double>(),
                                     test::slot_of(model.pool, slot.name, true).as<double>(), loss, 3),
                1e-6)
          << slot.name;
    }
  }
}

TEST(AbsentHalves, PlanIsThePeak) {
  const LooseOptions wide{.biases = true,
                          .size = {.hidden_size = 96, .intermediate_size = 160, .layers = 3, .head_dim = 24}};
  using Missing = std::vector<std::pair<int, Half>>;
  const Missing no_mlp = {{0, Half::mlp}, {1, Half::mlp}, {2, Half::mlp}},
                no_attention = {{0, Half::attention}, {1, Half::attention}, {2, Half::attention}};
  for (const Missing& missing : {kMissing, no_mlp, no_attention}) {
    LooseOptions options = wide;
    options.missing = missing;
    LooseDecoder model(options);
    for (const Keep keep : {Keep::everything, Keep::inputs}) {
      OwnContext real;
      const Compute plan = Compute::counting({}, real.ctx.threads);
      const RowGroup group{0, model.tokens(30)};
      model.train(plan, {&group, 1}, keep);
      model.train(real.ctx, {&group, 1}, keep);
      EXPECT_EQ(plan.peak_bytes(), real.arena.peak_bytes());
    }
  }
}

WeightSpec spec_of(Part part, int layer = 0) {
  return {.name = "w", .type = "", .layer = layer, .part = part, .shape = {1}, .init = {}, .storage = "w"};
}

TEST(BlockParts, AreWholeHalves) {
  const std::vector<WeightSpec> mlp = {spec_of(Part::mlp_norm), spec_of(Part::gate), spec_of(Part::up),
                                       spec_of(Part::down)};
  const auto parts_with = [&](const WeightSpec& more) {
    std::vector<WeightSpec> specs = mlp;
    specs.push_back(more);
    return block_parts(specs);
  };
  const BlockWeights block = block_parts(mlp).front();
  EXPECT_TRUE(block.has_mlp());
  EXPECT_FALSE(block.has_attention());
  EXPECT_EQ(parts_with(spec_of(Part::embedding, -1)).size(), 1u);  // outside blocks
  for (const Part part : {Part::q, Part::k, Part::input_norm, Part::q_norm, Part::v_bias, Part::up, Part::embedding})
    EXPECT_THROW(parts_with(spec_of(part)), InternalError) << static_cast<int>(part);
  EXPECT_THROW(parts_with(spec_of(Part::gate, 2)), InternalError);
  std::vector<WeightSpec> third = mlp;
  for (WeightSpec& spec : third) spec.layer = 1;
  EXPECT_THROW(block_parts(third), InternalError) << "layer 0 has nothing";
}

}  // namespace
}  // namespace tessera
