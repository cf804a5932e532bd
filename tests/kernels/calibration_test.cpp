#include "kernels/calibration.h"

#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

std::vector<int32_t> every_row_but(int64_t tokens, int32_t left_out) {
  std::vector<int32_t> rows;
  for (int32_t r = 0; r < tokens; ++r)
    if (r != left_out) rows.push_back(r);
  return rows;
}

double cosines(const Context& ctx, const Matrix& x, const Matrix& y, const std::vector<int32_t>& rows,
               double start = 0) {
  std::vector<double> sum{start};
  add_cosines(ctx, x.view(), y.view(), rows, sum);
  return sum[0];
}

TEST(Calibration, CosinesOfKnownAngles) {
  for (const char* backend : {"reference", "cpu"}) {
    Matrix x = Matrix::zeros(5, 17, DType::f32, 3), y = Matrix::zeros(5, 17, DType::f32, 1);
    x.set(0, 16, 3), y.set(0, 16, 1e-3);             // along each other
    x.set(1, 2, 3), y.set(1, 2, -5);                 // against each other
    x.set(2, 0, 1), x.set(2, 1, 1), y.set(2, 1, 7);  // 45 degrees
    x.set(3, 0, 1);                                  // y is zeros: no direction
    x.set(4, 0, 1), y.set(4, 1, 1);                  // at right angles
    const std::vector<double> want{1, -1, std::sqrt(0.5), 0, 0};
    for (int32_t r = 0; r < 5; ++r)
      EXPECT_NEAR(cosines(On(backend), x, y, {r}), want[static_cast<size_t>(r)], 1e-15) << backend << " " << r;
    EXPECT_NEAR(cosines(On(backend), x, y, {0, 2, 3, 2}, 10), 11 + 2 * std::sqrt(0.5), 1e-14) << backend;
    EXPECT_EQ(cosines(On(backend), x, y, {}, 10), 10) << backend;
  }
}

TEST(Calibration, CosinesDoNotFeelTheSizeOfRows) {
  for (const char* backend : {"reference", "cpu"}) {
    const Matrix x = Matrix::random(1, 100, DType::f32, 1);
    Matrix y = Matrix::random(1, 100, DType::f32, 2), tiny = y.copy(), huge = y.copy();
    for (int64_t c = 0; c < 100; ++c) {
      tiny.set(0, c, 0x1p-100 * y.at(0, c));  // squares that f32 does not hold
      huge.set(0, c, 0x1p+120 * y.at(0, c));
    }
    EXPECT_EQ(cosines(On(backend), x, tiny, {0}), cosines(On(backend), x, y, {0})) << backend;
    EXPECT_EQ(cosines(On(backend), x, huge, {0}), cosines(On(backend), x, y, {0})) << backend;
  }
}

class CalibrationOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(CalibrationOnCpu);

TEST_P(CalibrationOnCpu, CosinesAgreeWithTheReferenceInAnyNumberOfThreads) {
  for (const int64_t dim : kLengths)
    for (const int64_t tokens : {2, 7, 300}) {
      const Matrix x = Matrix::random(tokens, dim, DType::f32, 1, 1, 3),
                   y = Matrix::random(tokens, dim, DType::f32, 2, 4, 1);
      const auto rows = every_row_but(tokens, 1);
      const double one = cosines(On("cpu", 1), x, y, rows);
      EXPECT_NEAR(one, cosines(On("reference"), x, y, rows), 1e-14 * static_cast<double>(tokens));
      EXPECT_EQ(cosines(On("cpu", 2), x, y, rows), one);
      EXPECT_EQ(cosines(On("cpu", 3), x, y, rows), one);
      EXPECT_NEAR(cosines(On("cpu", 2), x, x, rows), static_cast<double>(rows.size()),
                  1e-14 * static_cast<double>(tokens));
    }
}

TEST_P(CalibrationOnCpu, ColumnSquaresHaveTheReferencesBits) {
  for (const int64_t dim : kLengths)
    for (const int64_t tokens : {1, 7, 300}) {
      const Matrix x = Matrix::random(tokens, dim, DType::f32, 1, 1, 3), start = Matrix::random(1, dim, DType::f64, 2);
      const auto rows = every_row_but(tokens, 3);
      const auto summed = [&](const Context& ctx) {
        Matrix sums = start.copy();
        add_column_squares(ctx, x.view(), rows, sums.vector());
        return sums;
      };
      const Matrix want = summed(On("reference"));
      for (const int threads : {1, 2, 3}) EXPECT_TRUE(summed(On("cpu", threads)).equals_bitwise(want));
    }
}

TEST(Calibration, ColumnSquaresAreSumsOverTheListedRows) {
  for (const char* backend : {"reference", "cpu"}) {
    Matrix x = Matrix::zeros(4, 2, DType::f32);
    for (int64_t r = 0; r < 4; ++r) x.set(r, 0, static_cast<double>(r + 1)), x.set(r, 1, r == 3 ? 4096 : 0x1p-12);
    std::vector<double> sums{0.5, 0};
    add_column_squares(On(backend), x.view(), std::vector<int32_t>{0, 2, 3}, sums);
    EXPECT_EQ(sums[0], 0.5 + 1 + 9 + 16) << backend;
    EXPECT_EQ(sums[1], 0x1p24 + 0x1p-23) << backend;  // f32 would lose the small ones
  }
}

TEST(Calibration, TakesTheScratchThatIsPlanned) {
  const std::vector<int32_t> rows(5000, 1);
  expect_planned([&](const Context& ctx) {
    const TensorView x = ctx.scratch.allocate({2, 3}, DType::f32), sums = ctx.scratch.allocate({3}, DType::f64);
    add_cosines(ctx, x, x, rows, sums.slice_rows(0, 1));
    add_column_squares(ctx, x, rows, sums);
  });
}

TEST(Calibration, RefusesRowsBeyondTheEndAndSumsOfOtherTypes) {
  const Matrix x = Matrix::zeros(4, 2, DType::f32);
  std::vector<double> wide{0, 0}, one{0};
  std::vector<float> narrow{0, 0};
  const std::vector<int32_t> beyond{4}, within{3};
  EXPECT_THROW(add_column_squares(On("cpu"), x.view(), beyond, wide), InternalError);
  EXPECT_THROW(add_cosines(On("cpu"), x.view(), x.view(), beyond, one), InternalError);
  try {
    add_column_squares(On("cpu"), x.view(), within, narrow);
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("add_column_squares: sums is [2] of f32, expected [2] of f64"));
  }
  EXPECT_THROW(add_cosines(On("cpu"), x.view(), x.view(), within, wide), InternalError);
}

}  // namespace
}  // namespace tessera::test
