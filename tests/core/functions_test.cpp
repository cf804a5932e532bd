#include "core/functions/functions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/functions_sweep.h"
#include "core/random.h"

namespace tessera {

double test::any_bits(uint64_t i) { return std::bit_cast<double>(mix64(i)); }
double test::spread(uint64_t i, double reach) { return reach * (static_cast<double>(mix64(i) >> 11) * 0x1p-53 - 0.5); }

namespace {

using functions::Scalar;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr double kInfinity64 = std::numeric_limits<double>::infinity();

uint32_t bits(float x) { return std::bit_cast<uint32_t>(x); }
uint64_t bits(double x) { return std::bit_cast<uint64_t>(x); }

/// Equal to the bit: of zeros the sign counts, and there is one NaN.
template <class T>::testing::AssertionResult same(T got, T wanted) {
  if (bits(got) == bits(wanted)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << std::hexfloat << got << ", not " << wanted;
}

constexpr uint32_t kNan = 0x7fc00000u;
constexpr uint64_t kNan64 = 0x7ff8000000000000u;
const std::vector<uint32_t> kNans{0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xff812345u, 0x7fffffffu};
const std::vector<uint64_t> kNans64{0x7ff8000000000000u, 0xfff8000000000000u, 0x7ff0000000000001u, 0xfff0123456789abcu};

TEST(Functions, GiveOneNanForEveryNan) {
  for (const uint32_t nan : kNans) {
    const float x = std::bit_cast<float>(nan);
    for (const float y : {functions::exp(x), functions::log(x), functions::tanh(x)}) EXPECT_EQ(bits(y), kNan);
  }
  for (const uint64_t nan : kNans64) {
    const auto x = std::bit_cast<double>(nan);
    for (const double y : {functions::exp(x), functions::log(x), functions::log2(x), functions::sin(x),
                           functions::cos(x), functions::pow(x, 2), functions::pow(2, x)})
      EXPECT_EQ(bits(y), kNan64);
  }
}

TEST(Functions, ExpEndsWhereItsDocumentSays) {
  EXPECT_TRUE(same(functions::exp(0.0f), 1.0f));
  EXPECT_TRUE(same(functions::exp(-0.0f), 1.0f));
  EXPECT_TRUE(same(functions::exp(kInfinity), kInfinity));
  EXPECT_TRUE(same(functions::exp(-kInfinity), 0.0f));
  EXPECT_TRUE(same(functions::exp(0x1.62e42ep+6f), 0x1.ffff08p+127f));
  EXPECT_TRUE(same(functions::exp(std::nextafter(0x1.62e42ep+6f, kInfinity)), kInfinity));
  // The least result is normal: from there it falls to zero at once.
  EXPECT_TRUE(same(functions::exp(-0x1.5d589ep+6f), 0x1.00004cp-126f));
  EXPECT_TRUE(same(functions::exp(std::nextafter(-0x1.5d589ep+6f, -kInfinity)), 0.0f));

  EXPECT_TRUE(same(functions::exp(0.0), 1.0));
  EXPECT_TRUE(same(functions::exp(kInfinity64), kInfinity64));
  EXPECT_TRUE(same(functions::exp(-kInfinity64), 0.0));
  EXPECT_TRUE(same(functions::exp(0x1.62e42fefa39efp+9), 0x1.fffffffffff2ap+1023));
  EXPECT_TRUE(same(functions::exp(std::nextafter(0x1.62e42fefa39efp+9, 1e9)), kInfinity64));
  EXPECT_TRUE(same(functions::exp(-0x1.6232bdd7abcd2p+9), 0x1.000000000007cp-1022));
  EXPECT_TRUE(same(functions::exp(std::nextafter(-0x1.6232bdd7abcd2p+9, -1e9)), 0.0));
  for (const double x : {1e3, 1e300, 720.0, 709.9}) {
    EXPECT_TRUE(same(functions::exp(x), kInfinity64)) << x;
    EXPECT_TRUE(same(functions::exp(-x), 0.0)) << x;
  }
}

TEST(Functions, LogEndsWhereItsDocumentSays) {
  EXPECT_TRUE(same(functions::log(1.0f), 0.0f));
  EXPECT_TRUE(same(functions::log(0.0f), -kInfinity));
  EXPECT_TRUE(same(functions::log(-0.0f), -kInfinity));
  EXPECT_TRUE(same(functions::log(kInfinity), kInfinity));
  for (const float x : {-1.0f, -kInfinity, -0x1p-149f}) EXPECT_EQ(bits(functions::log(x)), kNan) << x;
  EXPECT_NEAR(functions::log(0x1p-149f), -149 * std::log(2.0), 4e-6);

  for (const auto log : {functions::log, functions::log2}) {
    EXPECT_TRUE(same(log(1.0), 0.0));
    EXPECT_TRUE(same(log(0.0), -kInfinity64));
    EXPECT_TRUE(same(log(-0.0), -kInfinity64));
    EXPECT_TRUE(same(log(kInfinity64), kInfinity64));
    for (const double x : {-1.0, -kInfinity64, -0x1p-1074}) EXPECT_EQ(bits(log(x)), kNan64) << x;
  }
}

TEST(Functions, Log2OfAPowerOfTwoIsItsExponent) {
  for (int k = -1074; k <= 1023; ++k) EXPECT_EQ(functions::log2(std::ldexp(1.0, k)), k);
}

TEST(Functions, TanhIsOddAndKeepsWhatIsTiny) {
  for (const float x : {0.0f, 0x1p-149f, 0x1.fffffep-127f, 0x1p-126f, 0x1.234p-30f, 0x1.ffffp-14f}) {
    EXPECT_TRUE(same(functions::tanh(x), x));
    EXPECT_TRUE(same(functions::tanh(-x), -x));
  }
  for (float x = 0x1p-12f; x < 12; x *= 1.001f) EXPECT_TRUE(same(functions::tanh(-x), -functions::tanh(x))) << x;
  for (const float x : {9.02f, 10.0f, 1e30f, kInfinity}) EXPECT_TRUE(same(functions::tanh(x), 1.0f)) << x;
}

TEST(Functions, SineAndCosineOfSmallAndHugeAngles) {
  EXPECT_TRUE(same(functions::cos(0.0), 1.0));
  for (const double x : {0.0, 0x1p-1074, 0x1.8p-1030, 0x1.fp-28}) {
    EXPECT_TRUE(same(functions::sin(x), x));
    EXPECT_TRUE(same(functions::sin(-x), -x));
    EXPECT_TRUE(same(functions::cos(x), 1.0));
  }
  // Cosines next to odd multiples of pi / 2 are the rounding of the multiple: known to many digits.
  EXPECT_TRUE(same(functions::cos(0x1.921fb54442d18p+0), 0x1.1a62633145c07p-54));
  EXPECT_TRUE(same(functions::sin(0x1.921fb54442d18p+1), 0x1.1a62633145c07p-53));
  EXPECT_TRUE(std::isfinite(functions::sin(0x1p40)));
  for (const double x : {std::nextafter(0x1p40, 1e99), 1e300, kInfinity64}) {
    EXPECT_EQ(bits(functions::sin(x)), kNan64) << x;
    EXPECT_EQ(bits(functions::cos(-x)), kNan64) << x;
  }
}

TEST(Functions, PowersThatAreExactAreExact) {
  for (int k = -1022; k <= 1023; ++k) EXPECT_TRUE(same(functions::pow(2, k), std::ldexp(1.0, k))) << k;
  EXPECT_TRUE(same(functions::pow(2, 1024), kInfinity64));
  EXPECT_TRUE(same(functions::pow(2, -1023), 0.0));
  double ten = 1;
  for (int k = 0; k <= 22; ++k, ten *= 10) EXPECT_TRUE(same(functions::pow(10, k), ten)) << k;
  for (uint64_t i = 0; i < 100000; ++i) {
    const double x = std::abs(test::any_bits(i));
    if (!(x >= 0x1p-1022 && x < kInfinity64)) continue;
    ASSERT_TRUE(same(functions::pow(x, 1), x));
    const double root = 1 + static_cast<double>(mix64(i) >> 38);  // 26 bits: its square is exact
    ASSERT_TRUE(same(functions::pow(root, 2), root * root));
    ASSERT_TRUE(same(functions::pow(root * root, 0.5), root));
  }
}

TEST(Functions, PowOfSpecialNumbers) {
  const double nan = std::bit_cast<double>(kNan64);
  for (const double any : {0.0, -0.0, 1.0, -3.0, kInfinity64, -kInfinity64, nan}) {
    EXPECT_TRUE(same(functions::pow(any, 0), 1.0)) << any;
    EXPECT_TRUE(same(functions::pow(any, -0.0), 1.0)) << any;
    EXPECT_TRUE(same(functions::pow(1, any), 1.0)) << any;
  }
  for (const double zero : {0.0, -0.0}) {
    EXPECT_TRUE(same(functions::pow(zero, 0.5), 0.0));
    EXPECT_TRUE(same(functions::pow(zero, kInfinity64), 0.0));
    EXPECT_TRUE(same(functions::pow(zero, -3), kInfinity64));
    EXPECT_EQ(bits(functions::pow(zero, nan)), kNan64);
  }
  EXPECT_TRUE(same(functions::pow(kInfinity64, 1e-300), kInfinity64));
  EXPECT_TRUE(same(functions::pow(kInfinity64, -1e-300), 0.0));
  EXPECT_TRUE(same(functions::pow(0.5, kInfinity64), 0.0));
  EXPECT_TRUE(same(functions::pow(0.5, -kInfinity64), kInfinity64));
  EXPECT_TRUE(same(functions::pow(1.5, kInfinity64), kInfinity64));
  EXPECT_TRUE(same(functions::pow(1.5, -kInfinity64), 0.0));
  for (const double y : {1.0, 2.0, 0.5, -1.0, kInfinity64}) EXPECT_EQ(bits(functions::pow(-2, y)), kNan64) << y;
}

TEST(Functions, AdamsCorrectionsKeepTheirDigitsOverManySteps) {
  // 0.9999999 to the power 2^53 is e^(2^53 log 0.9999999): an error in the logarithm is multiplied by 2^53.
  EXPECT_TRUE(same(functions::pow(0.999, 0x1p53), 0.0));
  EXPECT_TRUE(same(functions::pow(1 - 0x1p-53, 0x1p53), 0x1.78b56362cef37p-2));  // 1/e (1 - 2^-54)
  EXPECT_TRUE(same(functions::pow(1 - 0x1p-53, 0x1p55), 0x1.2c155b8213cf3p-6));
}

TEST(Functions, ExpRisesAcrossTheBreaksOfItsReduction) {
  for (int n = -125; n <= 127; ++n) {
    auto x = static_cast<float>((n + 0.5) * std::log(2.0));
    for (int i = 0; i < 500; ++i) x = std::nextafter(x, -kInfinity);
    float before = functions::exp(x);
    for (int i = 0; i < 1000; ++i) {
      x = std::nextafter(x, kInfinity);
      const float y = functions::exp(x);
      ASSERT_GE(y, before) << std::hexfloat << x;
      before = y;
    }
  }
  for (int n = -1021; n <= 1023; ++n) {
    double x = (n + 0.5) * std::log(2.0);
    for (int i = 0; i < 50; ++i) x = std::nextafter(x, -kInfinity64);
    double before = functions::exp(x);
    for (int i = 0; i < 100; ++i) {
      x = std::nextafter(x, kInfinity64);
      const double y = functions::exp(x);
      ASSERT_GE(y, before) << std::hexfloat << x;
      before = y;
    }
  }
}

TEST(Functions, OutOfLineCopiesAreTheDefinition) {
  using Double = Scalar<double>;
  for (uint64_t i = 0; i < 200000; ++i) {
    const double x = i % 2 ? test::any_bits(i) : test::spread(i, 64), y = test::spread(i + 1, 100);
    ASSERT_TRUE(same(functions::exp(x), functions::exp_f64<Double>(x)));
    ASSERT_TRUE(same(functions::log(x), functions::log_f64<Double>(x)));
    ASSERT_TRUE(same(functions::log2(x), functions::log2_f64<Double>(x)));
    ASSERT_TRUE(same(functions::pow(x, y), functions::pow_f64<Double>(x, y)));
    const auto [sin, cos] = functions::sin_cos_f64<Double>(x);
    ASSERT_TRUE(same(functions::sin(x), sin));
    ASSERT_TRUE(same(functions::cos(x), cos));
  }
}

constexpr uint64_t kStep = 997, kCount = 1 << 18;

// The hashes of docs/functions.md: other implementations compare theirs.
TEST(FunctionSweep, GivesTheGoldenHashes) {
  const test::SweepHashes golden{
      {"exp f32", 0x1bb9252b76d18a5bu}, {"log f32", 0xa5dec37c84442510u}, {"tanh f32", 0xdf5803814682f99cu},
      {"exp f64", 0xfd91d612a70a514fu}, {"log f64", 0xf8ad6f750815548fu}, {"log2 f64", 0xd553c5b0149cf937u},
      {"pow f64", 0xd741e23ecdeba79cu}, {"sin f64", 0x0d3f8be908a89bc8u}, {"cos f64", 0xee2f5eb11bcf9357u},
  };
  EXPECT_EQ(test::sweep_as_tests_are(kStep, kCount), golden);
}

TEST(FunctionSweep, DoesNotDependOnOptimisation) {
  const auto wanted = test::sweep_as_tests_are(9973, 20000);
  EXPECT_EQ(test::sweep_unoptimised(9973, 20000), wanted);
  EXPECT_EQ(test::sweep_optimised(9973, 20000), wanted);
}

#if defined(__x86_64__)
TEST(FunctionSweep, DoesNotDependOnFlushToZero) {
  const auto wanted = test::sweep_as_tests_are(9973, 50000);
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);  // flush-to-zero and denormals-are-zero
  const auto flushed = test::sweep_as_tests_are(9973, 50000);
  _mm_setcsr(before);
  EXPECT_EQ(flushed, wanted);
}
#endif

}  // namespace
}  // namespace tessera
