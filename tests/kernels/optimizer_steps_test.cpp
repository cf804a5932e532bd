#include "core/error.h"
#include "harness.h"
#include "support/optimizer_args.h"

namespace tessera::test {
namespace {

std::vector<float> random_values(size_t count, uint64_t seed, double range = 1) {
  const Matrix values = Matrix::random(1, static_cast<int64_t>(count), DType::f32, seed, range);
  return {values.vector().as<float>().begin(), values.vector().as<float>().end()};
}

struct AdamWState {
  std::vector<float> values, grads, m, v;
  explicit AdamWState(size_t count)
      : values(random_values(count, 1)),
        grads(random_values(count, 2, 1e-2)),
        m(random_values(count, 3, 1e-2)),
        v(random_values(count, 4, 1e-4)) {
    for (float& x : v) x = std::abs(x);
  }
  AdamWArgs args() { return adamw_args(values, grads, m, v); }
};

class OptimizerStepsOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(OptimizerStepsOnCpu);

TEST_P(OptimizerStepsOnCpu, AdamWHasTheBitsOfTheReference) {
  for (const size_t count : {1u, 7u, 16u, 17u, 100u, 40001u}) {
    AdamWState want(count);
    for (int step = 0; step < 3; ++step) adamw_step(On("reference"), want.args());
    for (const int threads : {1, 2, 3}) {
      AdamWState got(count);
      for (int step = 0; step < 3; ++step) adamw_step(On("cpu", threads), got.args());
      EXPECT_EQ(got.values, want.values);
      EXPECT_EQ(got.m, want.m);
      EXPECT_EQ(got.v, want.v);
    }
  }
}

TEST_P(OptimizerStepsOnCpu, SgdHasTheBitsOfTheReference) {
  for (const size_t count : {1u, 17u, 40001u}) {
    for (const size_t buffered : {size_t{0}, count}) {
      const auto grads = random_values(count, 1);
      auto want = random_values(count, 2), want_buffer = random_values(buffered, 3);
      const auto start = want, start_buffer = want_buffer;
      sgd_step(On("reference"), sgd_args(want, grads, want_buffer));
      for (const int threads : {1, 2, 3}) {
        auto got = start, buffer = start_buffer;
        sgd_step(On("cpu", threads), sgd_args(got, grads, buffer));
        EXPECT_EQ(got, want);
        EXPECT_EQ(buffer, want_buffer);
      }
    }
  }
}

TEST(AdamW, FollowsTheFormula) {
  AdamWState state(50);
  const AdamWState start(50);
  const AdamWArgs args = state.args();
  adamw_step(On("reference"), args);
  for (size_t i = 0; i < 50; ++i) {
    const double g = 0.25 * start.grads[i];
    const double m = 0.9 * start.m[i] + 0.1 * g, v = 0.999 * start.v[i] + 0.001 * g * g;
    const double decayed = start.values[i] - 3e-3 * 0.1 * start.values[i];
    const double want = decayed - 3e-3 * 0.5 * (m / args.correction1) / (std::sqrt(v / args.correction2) + 1e-8);
    EXPECT_NEAR(state.values[i], want, 1e-6);
    EXPECT_NEAR(state.m[i], m, 1e-8);
    EXPECT_NEAR(state.v[i], v, 1e-9);
  }
}

TEST(AdamW, FirstStepMovesByTheLearningRateAgainstTheGradient) {
  std::vector<float> values{1, 1}, grads{1e-3f, -5}, m(2), v(2);
  AdamWArgs args = adamw_args(values, grads, m, v);
  args.lr = 0.01f;
  args.eps = 1e-12f;
  args.weight_decay = 0;
  args.step_scale = args.grad_scale = 1;
  args.correction1 = 1 - 0.9;
  args.correction2 = 1 - 0.999;
  adamw_step(On("cpu"), args);
  // After one step m / c1 is the gradient and v / c2 its square: the quotient is the gradient's sign, whatever its
  // size.
  EXPECT_NEAR(values[0], 0.99, 1e-6);
  EXPECT_NEAR(values[1], 1.01, 1e-6);
}

TEST(Sgd, FollowsTheFormula) {
  std::vector<float> values{2}, grads{4}, buffer{1};
  SgdArgs args = sgd_args(values, grads, buffer);
  args.lr = 0.5f;
  args.momentum = 0.25f;
  args.weight_decay = 0.125f;
  sgd_step(On("cpu"), args);
  EXPECT_EQ(buffer[0], 2.25f);
  EXPECT_EQ(values[0], 2 - 0.0625f * 2 - 2.25f);
}

TEST(Sgd, NeedsABufferForMomentum) {
  std::vector<float> values{2}, grads{4};
  SgdArgs args = sgd_args(values, grads, {});
  args.momentum = 0.9f;
  EXPECT_THROW(sgd_step(On("cpu"), args), InternalError);
}

}  // namespace
}  // namespace tessera::test
