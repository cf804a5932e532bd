#include "core/tensor.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/error.h"

namespace tessera {
namespace {

/// The value of a 16-bit float, from its fields: an independent way to the same number.
double decode(uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits & 0x7fff) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

struct BFloatFormat {
  static constexpr int kExponentBits = 8;
  static float widen(uint16_t bits) { return to_float(BFloat16{bits}); }
  static uint16_t narrow(float value) { return to_bfloat16(value).bits; }
};
struct HalfFormat {
  static constexpr int kExponentBits = 5;
  static float widen(uint16_t bits) { return to_float(Float16{bits}); }
  static uint16_t narrow(float value) { return to_float16(value).bits; }
};

template <class Format> class SixteenBitFloat : public ::testing::Test {};
using Formats = ::testing::Types<BFloatFormat, HalfFormat>;
TYPED_TEST_SUITE(SixteenBitFloat, Formats);

TYPED_TEST(SixteenBitFloat, EveryPatternWidensExactly) {
  for (int bits = 0; bits < 65536; ++bits) {
    const double expected = decode(static_cast<uint16_t>(bits), TypeParam::kExponentBits);
    const float value = TypeParam::widen(static_cast<uint16_t>(bits));
    if (std::isnan(expected))
      ASSERT_TRUE(std::isnan(value)) << bits;
    else
      ASSERT_EQ(value, expected) << bits;
    ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << bits;
  }
}

TYPED_TEST(SixteenBitFloat, EveryPatternSurvivesTheWayToFloatAndBack) {
  for (int bits = 0; bits < 65536; ++bits) {
    const float value = TypeParam::widen(static_cast<uint16_t>(bits));
    const uint16_t back = TypeParam::narrow(value);
    if (std::isnan(value))
      ASSERT_TRUE(std::isnan(TypeParam::widen(back))) << bits;
    else
      ASSERT_EQ(back, bits);
  }
}

TYPED_TEST(SixteenBitFloat, HalfwayValuesRoundToEvenAndTheirNeighboursToTheNearest) {
  for (int low = 0; low < 0x7fff; ++low) {
    const auto low_bits = static_cast<uint16_t>(low), high_bits = static_cast<uint16_t>(low + 1);
    const double below = decode(low_bits, TypeParam::kExponentBits),
                 above = decode(high_bits, TypeParam::kExponentBits);
    if (!std::isfinite(above)) break;
    const auto middle = static_cast<float>((below + above) / 2);  // exact: f32 has bits to spare
    const uint16_t even = low % 2 == 0 ? low_bits : high_bits;
    ASSERT_EQ(TypeParam::narrow(middle), even) << low;
    ASSERT_EQ(TypeParam::narrow(-middle), even | 0x8000) << low;
    ASSERT_EQ(TypeParam::narrow(std::nextafter(middle, 0.0f)), low_bits) << low;
    ASSERT_EQ(TypeParam::narrow(std::nextafter(middle, HUGE_VALF)), high_bits) << low;
  }
}

TYPED_TEST(SixteenBitFloat, ValuesBeyondTheLargestBecomeInfinite) {
  const uint16_t infinity = TypeParam::narrow(HUGE_VALF);
  EXPECT_TRUE(std::isinf(TypeParam::widen(infinity)));
  EXPECT_EQ(TypeParam::narrow(std::numeric_limits<float>::max()), infinity);
  EXPECT_EQ(TypeParam::narrow(-std::numeric_limits<float>::max()), infinity | 0x8000);
}

TEST(BFloat16, ANanWithLowBitsOnlyStaysANan) {
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0xffffffffu)))));
}

TEST(Float16, ANanStaysAQuietOneWithItsSignAndLeadingBits) {  // as processors that convert do it
  EXPECT_EQ(to_float16(std::bit_cast<float>(0x7f800001u)).bits, 0x7e00);
  EXPECT_EQ(to_float16(std::bit_cast<float>(0xffaaa000u)).bits, 0xff55);
  EXPECT_EQ(std::bit_cast<uint32_t>(to_float(Float16{0xfd55})), 0xffeaa000u);
}

TEST(Float16, FloatsAtTheEndsOfItsRangesRoundToTheNearest) {
  EXPECT_EQ(to_float16(65519.996f).bits, 0x7bff);
  EXPECT_EQ(to_float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_float16(0x1.ff8p-15f).bits, 0x03ff);  // the largest subnormal
  EXPECT_EQ(to_float16(0x1.ffcp-15f).bits, 0x0400);  // half way to the smallest normal number
  EXPECT_EQ(to_float16(-0x1p-25f).bits, 0x8000);
  EXPECT_EQ(to_float16(0x1.000002p-25f).bits, 0x0001);
  EXPECT_EQ(to_float16(std::numeric_limits<float>::denorm_min()).bits, 0x0000);
}

TEST(DType, NamesAndSizesBelongTogether) {
  EXPECT_EQ(name_of(DType::f64), "f64");
  EXPECT_EQ(name_of(DType::bf16), "bf16");
  EXPECT_EQ(name_of(DType::u8), "u8");
  EXPECT_EQ(size_of(DType::f64), 8);
  EXPECT_EQ(size_of(DType::i64), 8);
  EXPECT_EQ(size_of(DType::f16), 2);
  EXPECT_EQ(size_of(DType::i8), 1);
  EXPECT_TRUE(is_floating(DType::f16));
  EXPECT_FALSE(is_floating(DType::i64));
}

TEST(Shape, CountsAndPrints) {
  EXPECT_EQ(Shape({}).count(), 1);
  EXPECT_EQ(Shape({2, 0, 3}).count(), 0);
  EXPECT_EQ(Shape({2, 3, 4, 5}).count(), 120);
  EXPECT_EQ(Shape({}).text(), "[]");
  EXPECT_EQ(Shape({2, 3}).text(), "[2, 3]");
  EXPECT_EQ(Shape({2, 3}), Shape({2, 3}));
  EXPECT_FALSE(Shape({2, 3}) == Shape({2, 3, 1}));
  EXPECT_THROW(Shape({1, 2, 3, 4, 5}), InternalError);
}

TEST(View, ColumnsOfAMatrixKeepItsRowStride) {
  std::vector<float> values(12);
  std::iota(values.begin(), values.end(), 0.0f);
  const TensorView matrix = view_of(std::span(values), {3, 4});
  const TensorView columns = matrix.slice_cols(1, 3);
  EXPECT_EQ(columns.shape, Shape({3, 2}));
  EXPECT_FALSE(columns.is_contiguous());
  EXPECT_EQ(columns.row<float>(2)[1], 10.0f);
  EXPECT_THROW(columns.as<float>(), InternalError);
  const TensorView rows = matrix.slice_rows(1, 3);
  EXPECT_TRUE(rows.is_contiguous());
  EXPECT_EQ(rows.as<float>().front(), 4.0f);
  rows.as<float>()[0] = -1;
  EXPECT_EQ(values[4], -1.0f);
}

TEST(View, SlicesAndReshapesOutsideOfTheShapeAreOurMistake) {
  const Tensor tensor({3, 4}, DType::f32);
  EXPECT_THROW(tensor.view().slice_rows(2, 4), InternalError);
  EXPECT_THROW(tensor.view().slice_cols(-1, 2), InternalError);
  EXPECT_THROW(tensor.view().reshape({5, 2}), InternalError);
  EXPECT_THROW(tensor.as<double>(), InternalError);
  EXPECT_EQ(tensor.view().reshape({2, 6}).shape, Shape({2, 6}));
}

TEST(Tensor, IsZeroAndAligned) {
  for (DType dtype : {DType::f64, DType::bf16, DType::u8}) {
    const Tensor tensor({3, 5}, dtype);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.view().data) % 64, 0u);
    const auto* bytes = static_cast<const uint8_t*>(tensor.view().data);
    for (int64_t i = 0; i < tensor.view().bytes(); ++i) ASSERT_EQ(bytes[i], 0);
  }
}

TEST(Tensor, ElementReadsEveryFloatingType) {
  double f64 = 0.1;
  float f32 = 0.5f;
  BFloat16 bf16 = to_bfloat16(-2.0f);
  Float16 f16 = to_float16(1.5f);
  int32_t i32 = 1;
  EXPECT_EQ(element(ConstView(&f64, {1}, DType::f64), 0), 0.1);
  EXPECT_EQ(element(ConstView(&f32, {1}, DType::f32), 0), 0.5);
  EXPECT_EQ(element(ConstView(&bf16, {1}, DType::bf16), 0), -2.0);
  EXPECT_EQ(element(ConstView(&f16, {1}, DType::f16), 0), 1.5);
  EXPECT_THROW(element(ConstView(&i32, {1}, DType::i32), 0), InternalError);
}

}  // namespace
}  // namespace tessera
