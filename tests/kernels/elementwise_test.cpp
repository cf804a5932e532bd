#include <bit>

#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

class ElementwiseOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(ElementwiseOnCpu);

TEST_P(ElementwiseOnCpu, AddAndScaleRowsHaveTheBitsOfTheReference) {
  const On cpu("cpu", 2), reference("reference");
  for (const int64_t dim : kLengths) {
    for (const int64_t rows : {1, 5, 40}) {
      const Matrix x = Matrix::random(rows, dim, DType::f32, 1, 1, 3),
                   y = Matrix::random(rows, dim, DType::f32, 2, 1, 1);
      const Matrix factors = Matrix::random(1, rows, DType::f32, 3), want = y.copy();
      add(cpu, x.view(), y);
      add(reference, x.view(), want);
      EXPECT_TRUE(y.equals_bitwise(want));
      scale_rows(cpu, factors.vector(), y);
      scale_rows(reference, factors.vector(), want);
      EXPECT_TRUE(y.equals_bitwise(want));
      EXPECT_TRUE(y.is_padding_untouched());
    }
  }
}

TEST_P(ElementwiseOnCpu, AddsLongVectorsInAnyNumberOfThreads) {
  const Matrix x = Matrix::random(1, 50001, DType::f32, 1), start = Matrix::random(1, 50001, DType::f32, 2),
               want = start.copy();
  add(On("reference"), x.vector(), want.vector());
  for (const int threads : {1, 2, 3}) {
    const Matrix y = start.copy();
    add(On("cpu", threads), x.vector(), y.vector());
    EXPECT_TRUE(y.equals_bitwise(want));
  }
}

/// The result of a conversion as raw bits.
template <class To, class From> std::vector<To> converted(const Context& ctx, std::vector<From> values) {
  const auto count = static_cast<int64_t>(values.size());
  std::vector<To> out(values.size());
  convert(ctx, ConstView(values.data(), {count}, DTypeOf<From>::value),
          TensorView(out.data(), {count}, DTypeOf<To>::value));
  return out;
}

TEST_P(ElementwiseOnCpu, WidensEveryHalfPrecisionNumberExactly) {
  std::vector<BFloat16> brains;
  std::vector<Float16> halves;
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    brains.push_back({static_cast<uint16_t>(bits)});
    halves.push_back({static_cast<uint16_t>(bits)});
  }
  const On cpu("cpu", 2);
  const auto from_brains = converted<float>(cpu, brains), from_halves = converted<float>(cpu, halves);
  for (uint32_t i = 0; i < 65536; ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(from_brains[i]), i << 16);
    const float want = to_float(halves[i]);
    if (std::isnan(want))
      ASSERT_TRUE(std::isnan(from_halves[i])) << i;
    else
      ASSERT_EQ(std::bit_cast<uint32_t>(from_halves[i]), std::bit_cast<uint32_t>(want)) << i;
  }
}

TEST_P(ElementwiseOnCpu, RoundsToNearestEven) {
  std::vector<float> values{0.0f, -0.0f, 1e-45f, -1e-40f, 65504.0f, 65519.9f, 65520.0f, 3.4e38f, INFINITY, -INFINITY};
  const RandomStream stream(1, 2);
  for (uint64_t i = 0; i < 40000; ++i)
    values.push_back(std::bit_cast<float>(stream.bits(i)));  // any exponent, NaNs too
  for (uint32_t i = 0; i < 4000; ++i) values.push_back(std::bit_cast<float>(0x3f800000u + (i << 12)));  // ties
  const On cpu("cpu", 2), reference("reference");
  const auto brains = converted<BFloat16>(cpu, values), want_brains = converted<BFloat16>(reference, values);
  const auto halves = converted<Float16>(cpu, values), want_halves = converted<Float16>(reference, values);
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(brains[i].bits, want_brains[i].bits) << values[i];
    ASSERT_EQ(halves[i].bits, want_halves[i].bits) << values[i];
  }
}

TEST(Convert, RoundsF64OnceToNearestEven) {
  const On reference("reference");
  // Just above the tie between two bf16 numbers: rounding to f32 first would forget the excess and round down.
  const double above_tie = 1 + 0x1p-8 + 0x1p-40;
  const auto brains =
      converted<BFloat16>(reference, std::vector<double>{above_tie, -above_tie, 1 + 0x1p-8, 1 + 3 * 0x1p-8});
  EXPECT_EQ(to_float(brains[0]), 1 + 0x1p-7f);
  EXPECT_EQ(to_float(brains[1]), -1 - 0x1p-7f);
  EXPECT_EQ(to_float(brains[2]), 1.0f);
  EXPECT_EQ(to_float(brains[3]), 1 + 0x1p-6f);
  const auto halves = converted<Float16>(reference, std::vector<double>{1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-11, 1e300});
  EXPECT_EQ(to_float(halves[0]), 1 + 0x1p-10f);
  EXPECT_EQ(to_float(halves[1]), 1.0f);
  EXPECT_TRUE(std::isinf(to_float(halves[2])));
}

double squares(const Context& ctx, const ConstView& x) {
  const Tensor sum({1}, DType::f64);
  sum_of_squares(ctx, x, sum);
  return sum.as<double>()[0];
}

TEST_P(ElementwiseOnCpu, SumOfSquaresIsWideAndDoesNotDependOnThreads) {
  for (const int64_t count : {1, 3, 8, 17, 16384, 16385, 100003}) {
    const Matrix x = Matrix::random(1, count, DType::f32, 5, 1e3);
    const double want = squares(On("reference"), x.vector()), one = squares(On("cpu", 1), x.vector());
    EXPECT_NEAR(one, want, want * static_cast<double>(count + 2) * 0x1p-53);
    EXPECT_EQ(squares(On("cpu", 2), x.vector()), one);
    EXPECT_EQ(squares(On("cpu", 3), x.vector()), one);
  }
}

TEST(SumOfSquares, OfNothingIsZero) {
  std::vector<float> none;
  EXPECT_EQ(squares(On("cpu"), ConstView(none.data(), {0}, DType::f32)), 0);
}

TEST(Add, RefusesF64OnTheCpuBackend) {
  const Matrix x = Matrix::random(1, 3, DType::f64, 1);
  try {
    add(On("cpu"), x.view(), x);
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("add: the cpu backend does not compute in f64"));
  }
}

}  // namespace
}  // namespace tessera::test
