// Products at the ends of what there is: no term and one, numbers near zero and beyond f32, and the longest sums.

#include <gtest/gtest.h>

#include <bit>

#include "kernels/gemm.h"
#include "kernels/harness.h"

namespace tessera::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// op(A) and op(B) with padding behind each row, and C as it was.
struct Operands {
  int64_t m, n, k;
  Transpose a_transpose = Transpose::no, b_transpose = Transpose::yes;
  DType b_dtype = DType::f32;
  double alpha = 1, beta = 0;
  Sum sum = Sum::blocks;
  Matrix a = a_transpose == Transpose::yes ? Matrix::random(k, m, DType::f32, 1, 1, 3)
                                           : Matrix::random(m, k, DType::f32, 1, 1, 3),
         b = b_transpose == Transpose::yes ? Matrix::random(n, k, b_dtype, 2, 1, 1)
                                           : Matrix::random(k, n, b_dtype, 2, 1, 1),
         c = Matrix::random(m, n, DType::f32, 3, 1, 5);

  double at_a(int64_t i, int64_t p) const { return a_transpose == Transpose::yes ? a.at(p, i) : a.at(i, p); }
  double at_b(int64_t p, int64_t j) const { return b_transpose == Transpose::yes ? b.at(j, p) : b.at(p, j); }
  void set_a(int64_t i, int64_t p, double x) { a_transpose == Transpose::yes ? a.set(p, i, x) : a.set(i, p, x); }
  void set_b(int64_t p, int64_t j, double x) { b_transpose == Transpose::yes ? b.set(j, p, x) : b.set(p, j, x); }

  Matrix product(int threads) const {
    Matrix result(m, n, DType::f32, 5);
    for (int64_t i = 0; i < m * n; ++i) result.set(i / n, i % n, c.at(i / n, i % n));
    gemm(On("cpu", threads), {.a = a.view(),
                              .a_transpose = a_transpose,
                              .b = b.view(),
                              .b_transpose = b_transpose,
                              .c = result,
                              .alpha = alpha,
                              .beta = beta,
                              .sum = sum});
    EXPECT_TRUE(result.is_padding_untouched());
    return result;
  }

  /// An element in the order of gemm.h, in plain loops.
  float plain(int64_t i, int64_t j) const {
    float to = beta == 0 ? 0.0f : static_cast<float>(c.at(i, j)), s = sum == Sum::chain ? to : 0.0f;
    const auto scale = static_cast<float>(alpha);
    for (int64_t p = 0; p < k; ++p) {
      s = std::fma(static_cast<float>(at_a(i, p)), static_cast<float>(at_b(p, j)), s);
      if (sum == Sum::chain || ((p + 1) % 384 != 0 && p + 1 != k)) continue;
      to = p >= 384 ? to + scale * s : beta == 0 ? scale * s : std::fma(static_cast<float>(beta), to, scale * s);
      s = 0;
    }
    if (sum == Sum::chain) return s;
    return k == 0 && beta != 0 ? static_cast<float>(beta) * to : to;
  }

  /// Every NaN is one value.
  static uint32_t bits(double x) {
    return std::isnan(x) ? 0x7fc00000u : std::bit_cast<uint32_t>(static_cast<float>(x));
  }
  void expect_plain() const {
    for (const int threads : {1, 2, 3}) {
      const Matrix got = product(threads);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j)
          ASSERT_EQ(bits(got.at(i, j)), bits(static_cast<double>(plain(i, j))))
              << m << " x " << n << " x " << k << (sum == Sum::chain ? " chain" : "") << " alpha " << alpha << " beta "
              << beta << ", " << threads << " threads: [" << i << ", " << j << "] is " << got.at(i, j) << ", not "
              << plain(i, j);
    }
  }
};

// Few rows, tiles in place, and packed strips.
constexpr int64_t kRows[] = {1, 5, 30, 150};

class GemmExtremes : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(GemmExtremes);

TEST_P(GemmExtremes, NoTermLeavesBetaTimesWhatWasThere) {
  for (const int64_t m : kRows)
    for (const Sum sum : {Sum::blocks, Sum::chain})
      for (const double beta : {0.0, 1.0}) Operands{.m = m, .n = 50, .k = 0, .beta = beta, .sum = sum}.expect_plain();
  Operands{.m = 40, .n = 50, .k = 0, .alpha = 3, .beta = -0.5}.expect_plain();
}

TEST_P(GemmExtremes, OneTermAndOneElement) {
  for (const Sum sum : {Sum::blocks, Sum::chain})
    for (const double beta : {0.0, 1.0})
      for (const Transpose a : {Transpose::no, Transpose::yes})
        for (const Transpose b : {Transpose::no, Transpose::yes}) {
          for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
            if (sum == Sum::chain && dtype != DType::f32) continue;
            for (const int64_t k : {1, 2, 385})
              Operands{.m = 1,
                       .n = 1,
                       .k = k,
                       .a_transpose = a,
                       .b_transpose = b,
                       .b_dtype = dtype,
                       .beta = beta,
                       .sum = sum}
                  .expect_plain();
          }
          Operands{.m = 130, .n = 70, .k = 1, .a_transpose = a, .b_transpose = b, .beta = beta, .sum = sum}
              .expect_plain();
        }
}

/// Products of numbers below 2^-64 are subnormal: their sums keep the last bit that f32 has there.
TEST_P(GemmExtremes, SubnormalsAreKept) {
  for (const int64_t m : kRows)
    for (const Sum sum : {Sum::blocks, Sum::chain})
      for (const Transpose b : {Transpose::no, Transpose::yes}) {
        Operands o{.m = m, .n = 50, .k = 70, .b_transpose = b, .beta = 1, .sum = sum};
        for (int64_t p = 0; p < o.k; ++p) {
          for (int64_t i = 0; i < m; ++i) o.set_a(i, p, o.at_a(i, p) * 0x1p-66);
          for (int64_t j = 0; j < o.n; ++j) o.set_b(p, j, p % 7 == 0 ? 0x1p-140 : o.at_b(p, j) * 0x1p-70);
        }
        for (int64_t i = 0; i < m * o.n; ++i) o.c.set(i / o.n, i % o.n, o.c.at(i / o.n, i % o.n) * 0x1p-128);
        const double sample = static_cast<double>(o.plain(m - 1, 7));
        ASSERT_TRUE(sample != 0 && std::abs(sample) < 0x1p-126) << "nothing is subnormal";
        o.expect_plain();
      }
}

TEST_P(GemmExtremes, SubnormalsOf16BitWeightsAreWidened) {
  for (const int64_t m : kRows)
    for (const auto& [dtype, size] : {std::pair{DType::bf16, 0x1p-128}, std::pair{DType::f16, 0x1p-16}}) {
      Operands o{.m = m, .n = 50, .k = 70, .b_dtype = dtype};
      for (int64_t j = 0; j < o.n; ++j)
        for (int64_t p = 0; p < o.k; ++p) o.set_b(p, j, o.at_b(p, j) * size);
      ASSERT_NE(o.at_b(3, 3), 0);
      o.expect_plain();
    }
}

/// An infinity fills its row and column alone, becomes NaN where it meets zero or its opposite, and a sum that passes
/// f32's range stays there.
TEST_P(GemmExtremes, InfinitiesAndNaNsStayInTheirRowsAndColumns) {
  for (const int64_t m : kRows)
    for (const Sum sum : {Sum::blocks, Sum::chain})
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        if (sum == Sum::chain && dtype != DType::f32) continue;
        Operands o{.m = m, .n = 50, .k = 400, .b_dtype = dtype, .beta = 1, .sum = sum};
        for (int64_t p = 0; p < o.k; ++p) o.set_a(m / 2, p, p % 2 == 0 ? 3e38 : -3e38);
        o.set_a(0, 390, static_cast<double>(kInf));
        o.set_b(390, 11, 0);
        o.set_b(5, 20, -static_cast<double>(kInf));
        o.set_a(m - 1, 5, o.at_a(m - 1, 5) + 2);
        o.set_b(6, 30, std::numeric_limits<double>::quiet_NaN());
        o.c.set(m / 2, 40, static_cast<double>(kInf));
        ASSERT_TRUE(std::isnan(o.plain(0, 11)) && std::isnan(o.plain(0, 30)));
        ASSERT_TRUE(m < 3 || (std::isfinite(o.plain(1, 1)) && !std::isfinite(o.plain(1, 20))));
        o.expect_plain();
      }
}

/// Gradients of weights over 100,000 tokens, in f32, against f64: within the bound of a chain of so many roundings, and
/// with errors that are as good as independent (docs/determinism.md: 7e-6 of a sum's size at 131,072).
TEST(CpuGemm, WeightGradientsOver100000TokensAreNearTheTruth) {
  const Operands o{
      .m = 24, .n = 40, .k = 100'000, .a_transpose = Transpose::yes, .b_transpose = Transpose::no, .sum = Sum::chain};
  const Matrix got = o.product(2);
  double errors = 0, squares = 0;
  for (int64_t i = 0; i < o.m; ++i)
    for (int64_t j = 0; j < o.n; ++j) {
      double truth = 0, size = 0;
      for (int64_t p = 0; p < o.k; ++p) {
        const double product = o.at_a(i, p) * o.at_b(p, j);
        truth += product, size += std::abs(product);
      }
      const double error = got.at(i, j) - truth;
      EXPECT_LE(std::abs(error), static_cast<double>(o.k) * kUnit * size);
      errors += error * error, squares += truth * truth;
    }
  EXPECT_LE(std::sqrt(errors / squares), 1.2e-5);
}

}  // namespace
}  // namespace tessera::test
