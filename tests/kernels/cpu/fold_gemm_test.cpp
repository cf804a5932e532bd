// fold_gemm against the two calls that it stands for: the bits must be theirs, on both sides of every switch of gemm.
#include "kernels/cpu/scratch.h"
#include "kernels/fold.h"
#include "kernels/gemm.h"
#include "kernels/harness.h"

namespace tessera::test {
namespace {

class FoldGemmOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(FoldGemmOnCpu);

struct Shape2 {
  int64_t rows, cols;
};

/// The bits of fold_gemm, with exactly the planned scratch, are those of fold_expand and gemm.
void expect_equal(int64_t tokens, const FoldLayout& layout, int64_t cells, int threads, double beta, int64_t padding,
                  bool was_nan = false) {
  const FoldFactor factors[] = {{cells / 2, 0.75}, {cells, 1.5}};
  const FoldedMatrix matrix{.hash = FoldHash(9, cells), .begin = cells / 3, .layout = layout, .factors = factors};
  const Matrix pool = Matrix::random(1, cells, DType::f32, 1), w(layout.rows, layout.cols, DType::f32);
  const Matrix x = Matrix::random(tokens, layout.cols, DType::f32, 2, 1, padding);
  Matrix y = Matrix::random(tokens, layout.rows, DType::f32, 3, 1, padding);
  if (was_nan)
    for (int64_t t = 0; t < tokens; ++t) y.set(t, 0, std::numeric_limits<double>::quiet_NaN());
  const Matrix want = y.copy();
  const auto on = [&](Arena& scratch) {
    return Context{
        .device = {}, .stream = {}, .kernels = kernels_for({}, "cpu"), .scratch = scratch, .threads = threads};
  };
  Arena large(8 << 20), planned(cpu::fold_gemm_scratch_bytes(matrix, threads));
  fold_expand(on(large), matrix, pool.vector(), 0, w);
  gemm(on(large), {.a = x.view(), .b = w.view(), .b_transpose = Transpose::yes, .c = want.view(), .beta = beta});
  fold_gemm(on(planned), matrix, pool.vector(), x.view(), beta, y);
  ASSERT_TRUE(y.equals_bitwise(want)) << tokens << " x [" << layout.rows << ", " << layout.cols << "], tiles of "
                                      << layout.tile_rows << ", threads " << threads << ", beta " << beta;
  ASSERT_TRUE(y.is_padding_untouched());
}

TEST_P(FoldGemmOnCpu, HasTheBitsOfExpandAndGemm) {
  for (const int64_t tokens : {1, 2, 7, 8, 12, 13, 64, 200})
    for (const auto& [rows, cols] : {Shape2{1, 1}, Shape2{8, 70}, Shape2{9, 385}, Shape2{17, 48}, Shape2{100, 33},
                                     Shape2{250, 800}, Shape2{50, 1700}})
      for (const FoldLayout& layout :
           {FoldLayout{rows, cols}, FoldLayout{rows, cols, 32, 32}, FoldLayout{rows, cols, 16, 40}})
        expect_equal(tokens, layout, 1009, 1, 0, 0);
}

TEST_P(FoldGemmOnCpu, AddsToWhatWasThereAndKeepsOutOfThePadding) {
  for (const int64_t tokens : {1, 8, 13, 70})
    for (const FoldLayout& layout : {FoldLayout{50, 400}, FoldLayout{50, 400, 32, 32}})
      for (const double beta : {0.0, 1.0, -0.5}) expect_equal(tokens, layout, 20'500, 1, beta, 3);
}

TEST_P(FoldGemmOnCpu, IgnoresWhatYHeldWhenBetaIsZero) {
  for (const int64_t tokens : {1, 8, 13, 70}) expect_equal(tokens, {50, 400}, 20'500, 1, 0, 0, true);
}

TEST(FoldGemm, ThreadsDoNotChangeTheBits) {
  for (const int64_t tokens : {1, 12, 13, 200})
    for (const FoldLayout& layout : {FoldLayout{5, 900}, FoldLayout{40, 900}, FoldLayout{333, 900, 32, 32}})
      for (const int threads : {2, 3, 5}) expect_equal(tokens, layout, 5003, threads, 1, 0);
}

TEST(FoldGemm, AgreesWithTheReferenceInBothPrecisions) {
  const FoldFactor factor{500, 0.5};
  const FoldedMatrix matrix{.hash = FoldHash(9, 500), .begin = 77, .layout = {20, 70, 8, 8}, .factors = {&factor, 1}};
  const Matrix pool = Matrix::random(1, 500, DType::f32, 1), x = Matrix::random(6, 70, DType::f32, 2);
  const Matrix y(6, 20, DType::f32), narrow(6, 20, DType::f32), wide(6, 20, DType::f64);
  fold_gemm(On("cpu"), matrix, pool.vector(), x.view(), 0, y);
  fold_gemm(On("reference"), matrix, pool.vector(), x.view(), 0, narrow);
  fold_gemm(On("reference"), matrix, pool.as(DType::f64).vector(), x.as(DType::f64).view(), 0, wide);
  const auto tolerance = [](int64_t, int64_t) { return 70 * 0.5 * 74 * kUnit; };  // Σ|x||w| <= 35; any order of the sum
  expect_within(y, wide.as(DType::f32), tolerance);
  expect_within(narrow, wide.as(DType::f32), tolerance);
}

TEST(FoldGemm, OfMatricesWithoutColumnsIsBetaTimesY) {
  const FoldFactor factor{5, 1};
  const FoldedMatrix matrix{.hash = FoldHash(9, 5), .begin = 0, .layout = {4, 0}, .factors = {&factor, 1}};
  const Matrix pool = Matrix::random(1, 5, DType::f32, 1), x(3, 0, DType::f32, 1),
               y = Matrix::random(3, 4, DType::f32, 2);
  const Matrix before = y.copy();
  for (const char* backend : {"reference", "cpu"}) {
    fold_gemm(On(backend), matrix, pool.vector(), x.view(), 1, y);
    EXPECT_TRUE(y.equals_bitwise(before)) << backend;
  }
}

}  // namespace
}  // namespace tessera::test
