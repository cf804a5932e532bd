// Weights moved along a direction: w + scale z, rounded once.

#include "core/error.h"
#include "vote_samples.h"

namespace tessera::test {
namespace {

class PerturbOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(PerturbOnCpu);

const std::vector<Direction> kDirections{
    {.seed = kSeed, .round = 2, .machine = 1, .sample = 7},
    {.seed = 1, .round = 2, .machine = kHadamardStream, .lane = 5, .lanes = 8},
    {.seed = 1, .round = 3, .machine = kHadamardStream, .lane = 777, .lanes = 4096}};

TEST(Perturb, AddsTheScaledSignsRoundedOnce) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Matrix values = Matrix::random(1, 300, dtype, 1), out(1, 300, dtype, 3);
    perturb(On("reference"), values.vector(), 1000, kDirections[0], 0.001f, out.vector());
    for (int64_t i = 0; i < 300; ++i) {
      const double want = values.at(0, i) + static_cast<double>(0.001f) * sign_at(kDirections[0], 1000 + i);
      ASSERT_EQ(out.at(0, i), dtype == DType::f32 ? static_cast<float>(want) : want);
    }
  }
}

TEST_P(PerturbOnCpu, HasTheBitsOfTheReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t n : {1, 3, 64, 127, 128, 129, 576, 2048, 2049, 40001}) {
      const Matrix values = Matrix::random(1, n, dtype, 1);
      for (const int64_t first : {int64_t{0}, int64_t{1}, int64_t{127}, int64_t{5000}, (int64_t{1} << 39) - 100}) {
        for (const Direction& z : kDirections) {
          const Matrix want(1, n, DType::f32), got(1, n, DType::f32, 9);
          perturb(On("reference"), values.vector(), first, z, -0.0125f, want.vector());
          perturb(On("cpu", 2), values.vector(), first, z, -0.0125f, got.vector());
          ASSERT_TRUE(got.equals_bitwise(want)) << name_of(dtype) << ", " << n << " from " << first;
          ASSERT_TRUE(got.is_padding_untouched());
        }
      }
    }
  }
}

TEST_P(PerturbOnCpu, KeepsDenormals) {
  const auto values = make_weights(4000, 5);
  std::vector<float> want(values.size()), got(values.size());
  const ConstView in(values.data(), {4000}, DType::f32);
  perturb(On("reference"), in, 3, kDirections[0], 3e-40f, view_of(std::span(want), {4000}));
  perturb(On("cpu"), in, 3, kDirections[0], 3e-40f, view_of(std::span(got), {4000}));
  EXPECT_TRUE(equal_bits(got, want));
}

TEST(Perturb, NeverWritesTheWeights) {
  std::vector<float> memory(20);
  const ConstView values(memory.data(), {10}, DType::f32);
  const auto into = [&](int64_t begin) { return TensorView(memory.data() + begin, {10}, DType::f32); };
  EXPECT_THROW(perturb(On("cpu"), values, 0, {}, 1, into(0)), InternalError);
  EXPECT_THROW(perturb(On("cpu"), values, 0, {}, 1, into(9)), InternalError);
  EXPECT_NO_THROW(perturb(On("cpu"), values, 0, {}, 1, into(10)));
}

}  // namespace
}  // namespace tessera::test
