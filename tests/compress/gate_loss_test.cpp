// What gates lower: gradients of both losses, and a divergence that is nothing where nothing is gated.

#include "compress/gate_loss.h"

#include <gmock/gmock.h>

#include "compress/calibration.h"
#include "compress/stages_bench.h"

namespace tessera {
namespace {

class GateLosses : public test::StagesBench {
 protected:
  struct Result {
    GateLossSums sums;
    std::vector<float> gradients;
  };
  Result result(const GateUnits& of, const std::vector<double>& gates, GateLoss loss, bool checkpoint = false) {
    Result all{.sums = {}, .gradients = std::vector<float>(gates.size(), 0.0f)};
    all.sums = backprop_gates(
        own_.ctx, model_, batch(), loss,
        {.checkpoint_activations = checkpoint, .gates = of.gates(gates), .gate_grads = TensorView(all.gradients)});
    return all;
  }
  PackedBatch batch() { return inputs().data.batch(std::vector<int64_t>{0, 1, 2}, 0); }
  /// Ones among them, and values in between.
  static std::vector<double> some_gates(size_t count) {
    std::vector<double> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = i % 4 == 1 ? 1 : 0.35 + 0.1 * static_cast<double>(i % 5);
    return values;
  }
  /// Σ over scored rows of Σ p log(p / p_g), from whole logits in f64.
  double divergence(const GateUnits& of, const std::vector<double>& gates) {
    const PackedBatch rows = batch();
    const Tensor open = logits(rows, {}), gated = logits(rows, of.gates(gates));
    double sum = 0;
    for (int64_t row = 0; row < rows.tokens(); ++row)
      if (rows.labels[static_cast<size_t>(row)] >= 0) sum += divergence_of_row(open, gated, row);
    return sum;
  }

 private:
  Tensor logits(const PackedBatch& rows, BlockGates gates) {
    const auto scope = own_.ctx.scratch.scope();
    const BatchTokens in(own_.ctx, rows, nullptr, gates);
    const Pass pass{own_.ctx, in.tokens(), {&model_.pool()}};
    PackedAttention attention;
    const TensorView hidden = model_.decoder().forward(pass, attention);
    std::vector<int32_t> all(static_cast<size_t>(rows.tokens()));
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int32_t>(i);
    Tensor found({rows.tokens(), model_.config().vocab_size}, DType::f32);
    model_.decoder().logits(pass, hidden, all, found);
    return found;
  }
  static double divergence_of_row(const Tensor& open, const Tensor& gated, int64_t row) {
    const int64_t vocab = open.shape()[1];
    const auto log_sum = [&](const Tensor& of) {
      double sum = 0;
      for (int64_t v = 0; v < vocab; ++v) sum += std::exp(element(of.view(), row * vocab + v));
      return std::log(sum);
    };
    const double of_open = log_sum(open), of_gated = log_sum(gated);
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) {
      const double log_p = element(open.view(), row * vocab + v) - of_open;
      sum += std::exp(log_p) * (log_p - element(gated.view(), row * vocab + v) + of_gated);
    }
    return sum;
  }
};

TEST_F(GateLosses, GradientsAreTheLossesDifferences) {
  for (const char* kind : {"block", "sublayer"})
    for (const GateLoss loss : {GateLoss::cross_entropy, GateLoss::divergence}) {
      fold_.gates = kind;
      const GateUnits of = units();
      const std::vector<double> gates = some_gates(of.count());
      const Result at = result(of, gates, loss);
      for (size_t i = 0; i < gates.size(); ++i) {
        const double h = 2e-3;
        std::vector<double> up = gates, down = gates;
        up[i] += h, down[i] -= h;
        const double numeric = (result(of, up, loss).sums.loss - result(of, down, loss).sums.loss) / (2 * h);
        EXPECT_NEAR(at.gradients[i], numeric, 2e-2 * std::max(1.0, std::abs(numeric))) << kind << " " << i;
      }
    }
}

TEST_F(GateLosses, TheDivergenceIsThatOfWholeDistributions) {
  const GateUnits of = units();
  const std::vector<double> gates = some_gates(of.count());
  const Result at = result(of, gates, GateLoss::divergence);
  EXPECT_EQ(at.sums.scored, static_cast<double>(batch().scored()));
  EXPECT_GT(at.sums.loss, 1);
  EXPECT_NEAR(at.sums.loss, divergence(of, gates), 1e-4 * at.sums.loss);
}

TEST_F(GateLosses, OpenGatesDivergeByNothing) {
  for (const char* kind : {"block", "sublayer"}) {
    fold_.gates = kind;
    const GateUnits of = units();
    const Result at = result(of, of.ones(), GateLoss::divergence);
    EXPECT_EQ(at.sums.loss, 0);
    EXPECT_THAT(at.gradients, testing::Each(0.0f)) << kind;
    EXPECT_THAT(result(of, of.ones(), GateLoss::cross_entropy).gradients, testing::Contains(testing::Ne(0.0f)));
  }
}

TEST_F(GateLosses, BlocksThatAreRunAgainGiveTheSameBits) {
  const GateUnits of = units();
  const std::vector<double> gates = some_gates(of.count());
  for (const GateLoss loss : {GateLoss::cross_entropy, GateLoss::divergence}) {
    const Result kept = result(of, gates, loss), again = result(of, gates, loss, true);
    EXPECT_EQ(again.sums.loss, kept.sums.loss);
    EXPECT_EQ(again.gradients, kept.gradients);
  }
}

TEST_F(GateLosses, ForwardPassesTellTheSameSumsAtEveryPoint) {
  const GateUnits of = units();
  const std::vector<double> some = some_gates(of.count()), ones = of.ones();
  const std::vector<BlockGates> points = {of.gates(some), of.gates(ones)};
  for (const GateLoss loss : {GateLoss::cross_entropy, GateLoss::divergence}) {
    std::array<GateLossSums, 2> sums;
    score_gates(own_.ctx, model_, batch(), loss, points, sums);
    EXPECT_NEAR(sums[0].loss, result(of, some, loss).sums.loss, 1e-4 * sums[0].loss);
    EXPECT_NEAR(sums[1].loss, result(of, ones, loss).sums.loss, 1e-4 * std::max(1.0, sums[1].loss));
    EXPECT_EQ(sums[1].scored, static_cast<double>(batch().scored()));
    const double once = sums[0].loss;
    score_gates(own_.ctx, model_, batch(), loss, points, sums);  // they go on
    EXPECT_NEAR(sums[0].loss, 2 * once, 1e-12 * once);
    EXPECT_EQ(sums[0].scored, 2 * static_cast<double>(batch().scored()));
  }
}

TEST(GateLossCosts, AreFourProductsATokenAndTwoForTheOtherPasses) {
  EXPECT_EQ(backprop_flop(GateLoss::cross_entropy, false), 4);
  EXPECT_EQ(backprop_flop(GateLoss::divergence, false), 6);
  EXPECT_EQ(backprop_flop(GateLoss::divergence, true), 8);
  EXPECT_EQ(probe_flop(GateLoss::cross_entropy), 4);
  EXPECT_EQ(probe_flop(GateLoss::divergence), 6);
}

}  // namespace
}  // namespace tessera
