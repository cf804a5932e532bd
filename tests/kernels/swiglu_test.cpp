#include "harness.h"

namespace tessera::test {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

class SwigluOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(SwigluOnCpu);

TEST_P(SwigluOnCpu, AgreesWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  for (const double range : {1.0, 20.0, 200.0}) {
    for (const int64_t dim : kLengths) {
      for (const int64_t rows : {1, 5, 40}) {
        const Matrix gate = Matrix::random(rows, dim, DType::f32, 1, range, 3),
                     up = Matrix::random(rows, dim, DType::f32, 2, 1, 1);
        const Matrix y(rows, dim, DType::f32, 2), want(rows, dim, DType::f64);
        swiglu(cpu, gate.view(), up.view(), y);
        swiglu(reference, gate.as(DType::f64).view(), up.as(DType::f64).view(), want);
        // exp within 2 ulp (4 units), and four roundings; below exp(-88) silu may vanish.
        expect_within(y, want, [&](int64_t r, int64_t c) { return 9 * kUnit * std::abs(want.at(r, c)) + 2e-36; });
      }
    }
  }
}

TEST_P(SwigluOnCpu, BackwardAgreesWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  for (const double range : {1.0, 20.0, 200.0}) {
    for (const int64_t dim : kLengths) {
      for (const int64_t rows : {1, 5, 40}) {
        const Matrix gate = Matrix::random(rows, dim, DType::f32, 1, range, 3),
                     up = Matrix::random(rows, dim, DType::f32, 2, 1, 1);
        const Matrix dy = Matrix::random(rows, dim, DType::f32, 3, 1, 2), dgate(rows, dim, DType::f32, 4),
                     dup(rows, dim, DType::f32, 5);
        const Matrix want_dgate(rows, dim, DType::f64), want_dup(rows, dim, DType::f64);
        swiglu_backward(cpu, gate.view(), up.view(), dy.view(), dgate, dup);
        swiglu_backward(reference, gate.as(DType::f64).view(), up.as(DType::f64).view(), dy.as(DType::f64).view(),
                        want_dgate, want_dup);
        expect_within(dgate, want_dgate, [&](int64_t r, int64_t c) {
          const double g = gate.at(r, c);  // 1 + g(1 - σ) cancels near g = -1.3: the error is relative to its terms
          return 16 * kUnit * std::abs(dy.at(r, c) * up.at(r, c)) * sigmoid(g) * (1 + std::abs(g)) + 1e-35;
        });
        expect_within(dup, want_dup,
                      [&](int64_t r, int64_t c) { return 9 * kUnit * std::abs(want_dup.at(r, c)) + 2e-36; });
      }
    }
  }
}

TEST(Swiglu, NaNStaysNaNAndLargeGatesSaturate) {
  const On cpu("cpu");
  Matrix gate = Matrix::zeros(1, 4, DType::f32);
  gate.set(0, 0, std::nan("")), gate.set(0, 1, 1e30), gate.set(0, 2, -1e30), gate.set(0, 3, 0);
  Matrix up = Matrix::zeros(1, 4, DType::f32);
  for (int c = 0; c < 4; ++c) up.set(0, c, 1);
  const Matrix y(1, 4, DType::f32);
  swiglu(cpu, gate.view(), up.view(), y);
  EXPECT_TRUE(std::isnan(y.at(0, 0)));
  EXPECT_EQ(y.at(0, 1), static_cast<double>(1e30f));
  EXPECT_EQ(y.at(0, 2), 0);
  EXPECT_EQ(y.at(0, 3), 0);
}

TEST(Swiglu, BackwardMayWriteOverItsInputs) {
  const On cpu("cpu");
  const Matrix gate = Matrix::random(2, 37, DType::f32, 1), up = Matrix::random(2, 37, DType::f32, 2),
               dy = Matrix::random(2, 37, DType::f32, 3);
  const Matrix dgate(2, 37, DType::f32), dup(2, 37, DType::f32);
  swiglu_backward(cpu, gate.view(), up.view(), dy.view(), dgate, dup);
  const Matrix gate2 = gate.copy(), up2 = up.copy();
  swiglu_backward(cpu, gate2.view(), up2.view(), dy.view(), gate2, up2);
  EXPECT_TRUE(gate2.equals_bitwise(dgate));
  EXPECT_TRUE(up2.equals_bitwise(dup));
  const Matrix gate3 = gate.copy(), dy3 = dy.copy();
  swiglu_backward(cpu, gate3.view(), up.view(), dy3.view(), gate3, dy3);
  EXPECT_TRUE(gate3.equals_bitwise(dgate));
  EXPECT_TRUE(dy3.equals_bitwise(dup));
}

TEST(Swiglu, ThreadsDoNotChangeABit) {
  const Matrix gate = Matrix::random(101, 333, DType::f32, 1), up = Matrix::random(101, 333, DType::f32, 2);
  std::vector<Matrix> ys;
  for (const int threads : {1, 2, 3}) {
    ys.emplace_back(101, 333, DType::f32);
    swiglu(On("cpu", threads), gate.view(), up.view(), ys.back());
  }
  EXPECT_TRUE(ys[1].equals_bitwise(ys[0]));
  EXPECT_TRUE(ys[2].equals_bitwise(ys[0]));
}

TEST(GradCheck, SwiGlu) {
  const On reference("reference");
  Matrix gate = Matrix::random(3, 5, DType::f64, 1, 3), up = Matrix::random(3, 5, DType::f64, 2);
  const Matrix dy = Matrix::random(3, 5, DType::f64, 3), y(3, 5, DType::f64), dgate(3, 5, DType::f64),
               dup(3, 5, DType::f64);
  const auto loss = [&] {
    swiglu(reference, gate.view(), up.view(), y);
    return dot(y, dy);
  };
  swiglu_backward(reference, gate.view(), up.view(), dy.view(), dgate, dup);
  expect_gradient(gate, dgate, loss);
  expect_gradient(up, dup, loss);
}

}  // namespace
}  // namespace tessera::test
