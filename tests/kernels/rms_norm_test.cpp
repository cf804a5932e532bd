#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

constexpr double kEps = 1e-5;

class RmsNormOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(RmsNormOnCpu);

TEST_P(RmsNormOnCpu, AgreesWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t dim : kLengths) {
      for (const int64_t rows : {1, 5, 70}) {
        const Matrix x = Matrix::random(rows, dim, DType::f32, 1, 2, 3), weight = Matrix::random(1, dim, dtype, 2);
        const Matrix y(rows, dim, DType::f32, 5), inv(1, rows, DType::f32), want(rows, dim, DType::f64),
            want_inv(1, rows, DType::f64);
        rms_norm(cpu, x.view(), weight.vector(), kEps, y, inv.vector());
        rms_norm(reference, x.as(DType::f64).view(), weight.vector(), kEps, want, want_inv.vector());
        // Half of the sum's error (dim roundings of like sign at most), and five roundings.
        const double relative = (static_cast<double>(dim) / 2 + 5) * kUnit;
        expect_relative(y, want, relative);
        expect_relative(inv, want_inv, relative);
      }
    }
  }
}

TEST_P(RmsNormOnCpu, BackwardAgreesWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t dim : kLengths) {
      for (const int64_t rows : {1, 5, 130}) {
        const Matrix x = Matrix::random(rows, dim, DType::f32, 3, 2, 1), weight = Matrix::random(1, dim, dtype, 4);
        const Matrix dy = Matrix::random(rows, dim, DType::f32, 5, 1, 2), inv(1, rows, DType::f32),
                     y(rows, dim, DType::f32);
        rms_norm(reference, x.view(), weight.vector(), kEps, y, inv.vector());
        const Matrix dx = Matrix::random(rows, dim, DType::f32, 6, 1, 4),
                     dweight = Matrix::random(1, dim, DType::f32, 7);
        const Matrix want_dx = dx.as(DType::f64), want_dweight = dweight.as(DType::f64), start = dx.copy();
        rms_norm_backward(cpu, x.view(), weight.vector(), inv.vector(), dy.view(), dx, dweight.vector());
        rms_norm_backward(reference, x.as(DType::f64).view(), weight.vector(), inv.as(DType::f64).vector(),
                          dy.as(DType::f64).view(), want_dx, want_dweight.vector());
        const auto n = [&](int64_t r, int64_t c) { return std::abs(x.at(r, c) * inv.at(0, r)); };
        std::vector<double> mean(static_cast<size_t>(rows));  // of |g n|
        for (int64_t i = 0; i < rows * dim; ++i)
          mean[i / dim] += std::abs(dy.at(i / dim, i % dim) * weight.at(0, i % dim)) * n(i / dim, i % dim) /
                           static_cast<double>(dim);
        expect_within(dx, want_dx, [&](int64_t r, int64_t c) {
          const double size =
              inv.at(0, r) * (std::abs(dy.at(r, c) * weight.at(0, c)) + n(r, c) * mean[r]) + std::abs(start.at(r, c));
          return (static_cast<double>(dim) + 8) * kUnit * size;
        });
        expect_within(dweight, want_dweight, [&](int64_t, int64_t c) {
          double size = 1;
          for (int64_t r = 0; r < rows; ++r) size += std::abs(dy.at(r, c)) * n(r, c);
          return (static_cast<double>(rows) + 4) * kUnit * size;
        });
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(RmsNorm, ThreadsDoNotChangeABit) {
  const Matrix x = Matrix::random(300, 577, DType::f32, 1), weight = Matrix::random(1, 577, DType::f32, 2);
  const Matrix dy = Matrix::random(300, 577, DType::f32, 3);
  std::vector<Matrix> ys, dxs, dweights;
  for (const int threads : {1, 2, 3}) {
    const On cpu("cpu", threads);
    const Matrix inv(1, 300, DType::f32);
    ys.emplace_back(300, 577, DType::f32);
    dxs.push_back(Matrix::zeros(300, 577, DType::f32));
    dweights.push_back(Matrix::zeros(1, 577, DType::f32));
    rms_norm(cpu, x.view(), weight.vector(), kEps, ys.back(), inv.vector());
    rms_norm_backward(cpu, x.view(), weight.vector(), inv.vector(), dy.view(), dxs.back(), dweights.back().vector());
  }
  for (int i : {1, 2}) {
    EXPECT_TRUE(ys[i].equals_bitwise(ys[0]));
    EXPECT_TRUE(dxs[i].equals_bitwise(dxs[0]));
    EXPECT_TRUE(dweights[i].equals_bitwise(dweights[0]));
  }
}

TEST(RmsNorm, MayWriteOverItsInput) {
  const On cpu("cpu");
  const Matrix x = Matrix::random(3, 33, DType::f32, 1), weight = Matrix::random(1, 33, DType::f32, 2),
               y(3, 33, DType::f32);
  rms_norm(cpu, x.view(), weight.vector(), kEps, y, {});
  rms_norm(cpu, x.view(), weight.vector(), kEps, x, {});
  EXPECT_TRUE(x.equals_bitwise(y));
}

TEST(GradCheck, RmsNorm) {
  const On reference("reference");
  Matrix x = Matrix::random(3, 7, DType::f64, 1), weight = Matrix::random(1, 7, DType::f64, 2);
  const Matrix dy = Matrix::random(3, 7, DType::f64, 3), y(3, 7, DType::f64), inv(1, 3, DType::f64);
  const auto loss = [&] {
    rms_norm(reference, x.view(), weight.vector(), kEps, y, inv.vector());
    return dot(y, dy);
  };
  loss();
  const Matrix dx = Matrix::zeros(3, 7, DType::f64), dweight = Matrix::zeros(1, 7, DType::f64);
  rms_norm_backward(reference, x.view(), weight.vector(), inv.vector(), dy.view(), dx, dweight.vector());
  expect_gradient(x, dx, loss);
  expect_gradient(weight, dweight, loss);
}

TEST(RmsNorm, NamesAWeightOfTheWrongLength) {
  const On cpu("cpu");
  const Matrix x = Matrix::random(2, 8, DType::f32, 1), weight = Matrix::random(1, 7, DType::f32, 2);
  try {
    rms_norm(cpu, x.view(), weight.vector(), kEps, x, {});
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("rms_norm: weight is [7], expected [8]"));
  }
}

}  // namespace
}  // namespace tessera::test
