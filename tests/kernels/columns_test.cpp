#include "kernels/columns.h"

#include "core/error.h"
#include "harness.h"
#include "kernels/elementwise.h"

namespace tessera::test {
namespace {

class ColumnsOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(ColumnsOnCpu);

TEST_P(ColumnsOnCpu, ScaleAndBiasAgreeWithTheReferenceForEveryStorage) {
  const On cpu("cpu", 2), reference("reference");
  for (const int64_t dim : kLengths)
    for (const int64_t rows : {1, 5, 70})
      for (const DType storage : {DType::f32, DType::bf16, DType::f16}) {
        const Matrix x = Matrix::random(rows, dim, DType::f32, 1, 1, 3),
                     start = Matrix::random(rows, dim, DType::f32, 2, 1, 1), row = Matrix::random(1, dim, storage, 3);
        for (const Write write : {Write::assign, Write::accumulate}) {
          const Matrix y = start.copy(), want = start.copy();
          scale_columns(cpu, x.view(), row.vector(), y, write);
          scale_columns(reference, x.view(), row.vector(), want, write);
          expect_within(y, want, [](int64_t, int64_t) { return 4 * kUnit; });
        }
        const Matrix y = start.copy(), want = start.copy();
        add_bias(cpu, row.vector(), y);
        add_bias(reference, row.vector(), want);
        EXPECT_TRUE(y.equals_bitwise(want));
        EXPECT_TRUE(y.is_padding_untouched());
        scale_columns(cpu, y, row.vector(), y, Write::assign);  // in place
        scale_columns(reference, want, row.vector(), want, Write::assign);
        EXPECT_TRUE(y.equals_bitwise(want));
      }
}

TEST_P(ColumnsOnCpu, SumsAgreeWithTheReferenceInAnyNumberOfThreads) {
  for (const int64_t dim : kLengths)
    for (const int64_t rows : {1, 63, 64, 65, 300})
      for (const bool product : {false, true}) {
        const Matrix x = Matrix::random(rows, dim, DType::f32, 1, 1, 2),
                     y = Matrix::random(rows, dim, DType::f32, 2, 1, 5), start = Matrix::random(1, dim, DType::f32, 3);
        const Matrix want = start.copy(), one = start.copy();
        const ConstView other = product ? ConstView(y.view()) : ConstView();
        add_column_sums(On("reference"), x.view(), other, want.vector());
        add_column_sums(On("cpu", 1), x.view(), other, one.vector());
        expect_within(one, want,
                      [&](int64_t, int64_t) { return static_cast<double>(rows + 2) * kUnit * std::sqrt(rows + 1.0); });
        for (const int threads : {2, 3}) {
          const Matrix more = start.copy();
          add_column_sums(On("cpu", threads), x.view(), other, more.vector());
          EXPECT_TRUE(more.equals_bitwise(one));
        }
      }
}

TEST_P(ColumnsOnCpu, ScaleAgreesWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  for (const int64_t dim : kLengths)
    for (const Write write : {Write::assign, Write::accumulate}) {
      const Matrix x = Matrix::random(9, dim, DType::f32, 1, 1, 3), y = Matrix::random(9, dim, DType::f32, 2, 1, 1),
                   want = y.copy();
      scale(cpu, 0.3125, x.view(), y, write);
      scale(reference, 0.3125, x.view(), want, write);
      expect_within(y, want, [](int64_t, int64_t) { return 4 * kUnit; });
    }
}

TEST_P(ColumnsOnCpu, DotsAreWideAndDoNotDependOnThreads) {
  for (const int64_t count : {1, 3, 8, 17, 16384, 16385, 100003})
    for (const bool difference : {false, true}) {
      const Matrix x = Matrix::random(1, count, DType::f32, 1), a = Matrix::random(1, count, DType::f32, 2),
                   b = Matrix::random(1, count, DType::f32, 3);
      const auto dotted = [&](const Context& ctx) {
        const std::vector<float> start = {0.5f};
        std::vector<float> sum = start;
        add_dot(ctx, x.vector(), a.vector(), difference ? ConstView(b.vector()) : ConstView(), sum);
        return sum[0];
      };
      const float want = dotted(On("reference")), one = dotted(On("cpu", 1));
      EXPECT_NEAR(one, want, 2 * kUnit * (1 + std::abs(want)));
      EXPECT_EQ(dotted(On("cpu", 2)), one);
      EXPECT_EQ(dotted(On("cpu", 3)), one);
    }
}

TEST(Columns, SumsAreTheGradientsOfGainAndBias) {
  const On reference("reference");
  const Matrix x = Matrix::random(5, 4, DType::f64, 1), dy = Matrix::random(5, 4, DType::f64, 2);
  Matrix gain = Matrix::random(1, 4, DType::f64, 3), bias = Matrix::random(1, 4, DType::f64, 4);
  const auto loss = [&] {
    const Matrix y(5, 4, DType::f64);
    scale_columns(reference, x.view(), gain.vector(), y, Write::assign);
    add_bias(reference, bias.vector(), y);
    return dot(y, dy);
  };
  const Matrix dgain = Matrix::zeros(1, 4, DType::f64), dbias = Matrix::zeros(1, 4, DType::f64);
  add_column_sums(reference, dy.view(), x.view(), dgain.vector());
  add_column_sums(reference, dy.view(), {}, dbias.vector());
  expect_gradient(gain, dgain, loss);
  expect_gradient(bias, dbias, loss);
}

TEST(Columns, NameTheOperandOfTheWrongShape) {
  const Matrix x = Matrix::zeros(2, 3, DType::f32), row = Matrix::zeros(1, 4, DType::f32);
  try {
    scale_columns(On("cpu"), x.view(), row.vector(), x, Write::assign);
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("scale_columns: factors is [4], expected [3]"));
  }
  EXPECT_THROW(add_bias(On("cpu"), row.vector(), x), InternalError);
  EXPECT_THROW(add_column_sums(On("cpu"), x.view(), row.view(), row.vector()), InternalError);
  EXPECT_THROW(add_dot(On("cpu"), x.view(), row.view(), {}, row.vector()), InternalError);
}

}  // namespace
}  // namespace tessera::test
