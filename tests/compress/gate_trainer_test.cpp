// Gate training on a frozen model: its gradients, what it leaves alone, going on, and what it finds that scores of
// single blocks do not.

#include "compress/gate_trainer.h"

#include <gmock/gmock.h>

#include <limits>

#include "compress/calibration.h"
#include "compress/probe.h"
#include "compress/stages_bench.h"
#include "core/error.h"
#include "train/backprop.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class GateTraining : public test::StagesBench {
 protected:
  GateTrainer trained(const StageInputs& in, const GateUnits& units, int64_t steps) {
    GateTrainer trainer(in, units, GateState::open(units.count()));
    for (int64_t step = 0; step < steps; ++step) trainer.take_step();
    return trainer;
  }
  double loss(const PackedBatch& batch, const GateUnits& units, const std::vector<double>& gates) {
    return score_batch(own_.ctx, model_, batch, {}, units.gates(gates))["nll"];
  }
};

TEST_F(GateTraining, GradientsOfGatesAreTheLossesDifferences) {
  for (const char* gates : {"block", "sublayer"}) {
    fold_.gates = gates;
    const StageInputs in = inputs();
    const GateUnits of = units();
    std::vector<double> values(of.count());
    for (size_t i = 0; i < values.size(); ++i) values[i] = i % 4 == 1 ? 1 : 0.35 + 0.1 * static_cast<double>(i % 5);
    const PackedBatch batch = in.data.batch(std::vector<int64_t>{0, 1, 2}, 0);
    std::vector<float> grads(values.size(), 0.0f);
    backprop_batch(own_.ctx, model_, batch, {.gates = of.gates(values), .gate_grads = grads});
    for (size_t i = 0; i < values.size(); ++i) {
      const double h = 2e-3;
      std::vector<double> up = values, down = values;
      up[i] += h, down[i] -= h;
      const double numeric = (loss(batch, of, up) - loss(batch, of, down)) / (2 * h);
      EXPECT_NEAR(grads[i], numeric, 2e-2 * std::max(1.0, std::abs(numeric))) << gates << " " << i;
    }
  }
}

TEST_F(GateTraining, LeavesTheModelAsItIsAndProtectedGatesOpen) {
  const std::vector<int32_t> ids = {3, 14, 1, 5, 9};
  const Tensor before = test::logits_of(own_.ctx, model_, ids);
  const StageInputs in = inputs();
  const GateUnits of = units();
  const GateTrainer trainer = trained(in, of, 12);
  EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, model_, ids).view(), before.view()));
  EXPECT_EQ(model_.pool().trainable_count(), 0);
  const std::vector<double> gates = trainer.gates();
  EXPECT_EQ(gates.front(), 1);
  EXPECT_EQ(gates.back(), 1);
  EXPECT_EQ(trainer.state().theta.front(), 1);
  for (size_t i = 1; i + 1 < gates.size(); ++i) EXPECT_NE(trainer.state().theta[i], 1) << i;
}

TEST_F(GateTraining, GoesOnWithTheSameBits) {
  fold_.gate_lr = 0.1;
  const StageInputs in = inputs();
  const GateUnits of = units();
  const GateTrainer whole = trained(in, of, 20);
  for (const int64_t step : {1, 10, 13}) {
    const std::string text = to_text(trained(in, of, step).state(), {});
    GateTrainer rest(in, of, parse_gates(text, "state").state);
    while (!rest.is_done()) rest.take_step();
    EXPECT_EQ(to_text(rest.state(), {}), to_text(whole.state(), {})) << "from step " << step;
  }
}

TEST_F(GateTraining, StopsAtANumberThatIsNotFiniteNamingStepAndBlock) {
  at(block(3).down, 0, 0) = std::numeric_limits<float>::quiet_NaN();
  const StageInputs in = inputs();
  const GateUnits of = units();
  GateTrainer trainer(in, of, GateState::open(of.count()));
  try {
    trainer.take_step();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("step 1 of the gates"), HasSubstr("block 3 gives a number")));
  }
  EXPECT_EQ(trainer.state().step, 0);
  EXPECT_EQ(trainer.state().theta, of.ones());
}

TEST_F(GateTraining, ABlockThatAddsNothingFallsFirst) {
  clear(block(3).o);
  clear(block(3).down);
  fold_.remove = 0.17;
  fold_.gate_lr = 0.03;
  fold_.gate_steps = 120;
  for (float& x : weight(number_of("lm_head.weight")).as<float>()) x *= 4;  // choices that are sure
  write_own_choices(60);
  const StageInputs in = inputs();
  const GateUnits of = units();
  const GateTrainer trainer = trained(in, of, fold_.gate_steps);
  const Probe probe = probe_blocks(in);
  EXPECT_NEAR(probe.influence[3], 0, 1e-12);
  const auto order =
      order_by_gates({.gate = trainer.gates(), .theta = trainer.state().theta, .bi = probe.influence, .falls = {}}, {});
  EXPECT_EQ(order.front(), 3);
  ASSERT_FALSE(trainer.state().fallen.empty());
  EXPECT_EQ(trainer.state().fallen.front().gate, 3);
}

/// Block 2 writes a large number into a channel that hardly anybody reads, and block 3 takes it away again. Either
/// alone matters most of all blocks; both together do nothing.
class Coupling : public GateTraining {
 protected:
  static constexpr int64_t kConstant = 0, kCoupled = 1;  // channels

  Coupling() {
    for (float& x : weight(number_of("model.norm.weight")).as<float>()) x = 6;
    for (float& x : weight(number_of("lm_head.weight")).as<float>()) x *= 5;
    for (int64_t token = 0; token < 23; ++token) {
      at(number_of("model.embed_tokens.weight"), token, kConstant) = 30;
      at(number_of("model.embed_tokens.weight"), token, kCoupled) = 0;
      at(number_of("lm_head.weight"), token, kConstant) = 0;
      at(number_of("lm_head.weight"), token, kCoupled) = token == 0 ? 1 : token == 1 ? -1 : 0;
    }
    for (int layer = 0; layer < 6; ++layer) isolate(layer);
    const double height = 30;
    write(2, height / activation(0));
    write(3, -height / activation(height));
  }

  /// Nobody reads or writes the two channels; the others are scaled up in front of each part.
  void isolate(int layer) {
    for (const int norm : {block(layer).input_norm, block(layer).mlp_norm})
      for (int64_t c = 0; c < 16; ++c) weight(norm).as<float>()[static_cast<size_t>(c)] = c < 2 ? 1 : 6;
    for (const int out : {block(layer).o, block(layer).down})
      for (const int64_t row : {kConstant, kCoupled}) clear_row(out, row);
    for (const int in : {block(layer).q, block(layer).k, block(layer).v, block(layer).gate, block(layer).up})
      for (int64_t row = 0; row < weight(in).rows(); ++row)
        for (const int64_t col : {kConstant, kCoupled}) at(in, row, col) = 0;
  }
  /// The block adds nothing but `factor` · activation to the coupled channel.
  void write(int layer, double factor) {
    for (const int number : {block(layer).o, block(layer).down, block(layer).gate, block(layer).up}) clear(number);
    at(block(layer).gate, 0, kConstant) = at(block(layer).up, 0, kConstant) = 1;
    at(block(layer).down, kCoupled, 0) = static_cast<float>(factor);
  }
  /// silu(n) · n of the normed constant, with so much in the coupled channel.
  static double activation(double coupled) {
    const double n = 30 / std::sqrt((30.0 * 30 + coupled * coupled) / 16);
    return n * n / (1 + std::exp(-n));
  }
};

TEST_F(Coupling, JointGatesDropThePairThatSingleScoresKeep) {
  fold_.remove = 0.33;
  fold_.gate_lr = 0.03;
  fold_.gate_steps = 200;
  fold_.gate_batch = 8;
  write_own_choices(60);
  const StageInputs in = inputs();
  const GateUnits of = units();
  const Probe probe = probe_blocks(in);
  const auto by_influence = order_by_influence(probe.influence, {});
  EXPECT_THAT((std::vector<int64_t>{by_influence[2], by_influence[3]}), testing::UnorderedElementsAre(2, 3));
  const double original = calibration_loss(in, in.model, of.gates(of.ones()));
  std::vector<double> alone;
  for (int64_t l = 1; l < 5; ++l)
    alone.push_back(calibration_loss(in, in.model, of.gates(of.without({.blocks = {l}, .halves = {}}))));
  EXPECT_GT(std::min(alone[1], alone[2]), std::max(alone[0], alone[3])) << "either of them alone is worth most";
  const double without_pair = calibration_loss(in, in.model, of.gates(of.without({.blocks = {2, 3}, .halves = {}})));
  EXPECT_LT(without_pair, original + 0.2);

  const GateTrainer trainer = trained(in, of, fold_.gate_steps);
  const auto order =
      order_by_gates({.gate = trainer.gates(), .theta = trainer.state().theta, .bi = probe.influence, .falls = {}}, {});
  EXPECT_THAT(remove_blocks(order, 2).blocks, ElementsAre(2, 3));
  EXPECT_LE(trainer.constraint().kept(trainer.gates()), trainer.constraint().target() + 0.01);
}

}  // namespace
}  // namespace tessera
