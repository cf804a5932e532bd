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

constexpr DType kFilled[] = {DType::f64, DType::f32, DType::i64, DType::i32};

/// Every element as a double.
std::vector<double> numbers(const Tensor& tensor) {
  std::vector<double> all;
  const auto take = [&](auto t) { all.assign(tensor.as<decltype(t)>().begin(), tensor.as<decltype(t)>().end()); };
  switch (tensor.dtype()) {
    case DType::i64:
      take(int64_t{});
      break;
    case DType::i32:
      take(int32_t{});
      break;
    default:
      for (int64_t i = 0; i < tensor.shape().count(); ++i) all.push_back(element(tensor.view(), i));
  }
  return all;
}

TEST(Fill, WritesEveryElementOfEveryType) {
  for (const char* backend : {"reference", "cpu"})
    for (const DType dtype : kFilled)
      for (const Shape& shape : {Shape{1}, Shape{50001}, Shape{0}, Shape{7, 33}, Shape{300, 120}, Shape{2, 3, 5}}) {
        const Tensor y(shape, dtype);
        fill(On(backend, 3), -3, y);
        EXPECT_EQ(numbers(y), std::vector<double>(static_cast<size_t>(shape.count()), -3))
            << backend << " " << name_of(dtype) << " " << shape.text();
      }
}

TEST(Fill, LeavesWhatLiesBetweenStridedRows) {
  for (const char* backend : {"reference", "cpu"})
    for (const DType dtype : {DType::f64, DType::f32})
      for (const int64_t rows : {1, 5, 900}) {
        const Matrix y = Matrix::random(rows, 37, dtype, 1, 1, 3);
        fill(On(backend, 2), 0.5, y);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < 37; ++c) ASSERT_EQ(y.at(r, c), 0.5) << backend << " " << r << " " << c;
        EXPECT_TRUE(y.is_padding_untouched()) << backend;
      }
}

TEST(Fill, KeepsTheBitsOfSpecialValuesAndRoundsOthers) {
  for (const char* backend : {"reference", "cpu"}) {
    const Tensor y({3}, DType::f32);
    fill(On(backend), 1, y);
    fill(On(backend), -0.0, y.view().slice_rows(0, 1));
    fill(On(backend), -INFINITY, y.view().slice_rows(1, 2));
    fill(On(backend), 0.1, y.view().slice_rows(2, 3));
    EXPECT_EQ(std::bit_cast<uint32_t>(y.as<float>()[0]), 0x80000000u) << backend;
    EXPECT_EQ(y.as<float>()[1], -INFINITY) << backend;
    EXPECT_EQ(y.as<float>()[2], 0.1f) << backend;
  }
}

TEST(Fill, WritesTheLargestWholeNumbers) {
  for (const char* backend : {"reference", "cpu"}) {
    const Tensor narrow({2}, DType::i32), wide({2}, DType::i64);
    fill(On(backend), -0x1p31, narrow);
    fill(On(backend), 0x1p53 - 1, wide);
    EXPECT_EQ(narrow.as<int32_t>()[1], std::numeric_limits<int32_t>::min());
    EXPECT_EQ(wide.as<int64_t>()[1], (int64_t{1} << 53) - 1);
  }
}

TEST(Fill, RefusesWhatTheElementsCannotHold) {
  const On cpu("cpu");
  const Tensor whole({2}, DType::i32), wide({2}, DType::i64), half({2}, DType::bf16);
  for (const double value : {0.5, 0x1p31, -0x1p32, double{INFINITY}, double{NAN}})
    EXPECT_THROW(fill(cpu, value, whole), InternalError);
  EXPECT_THROW(fill(cpu, 0x1p54, wide), InternalError);
  EXPECT_THROW(fill(cpu, 0, half), InternalError);
  EXPECT_THROW(fill(cpu, 0, TensorView()), InternalError);
}

TEST(Fill, OfAPlanTouchesNothingAndTakesNoScratch) {
  Arena counted = Arena::counting();
  const Context plan{.device = {}, .stream = {}, .kernels = kernels_for({}, "counting"), .scratch = counted};
  const TensorView made_up = counted.allocate({1000}, DType::f32);
  fill(plan, 0, made_up);
  EXPECT_EQ(counted.peak_bytes(), 4032);
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
