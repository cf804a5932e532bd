#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

struct Angles {
  Matrix cos, sin;
  Angles(int64_t positions, int64_t half, DType dtype) : cos(positions, half, dtype), sin(positions, half, dtype) {
    for (int64_t p = 0; p < positions; ++p)
      for (int64_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(p) * std::pow(100.0, -static_cast<double>(i) / static_cast<double>(half));
        cos.set(p, i, static_cast<float>(std::cos(angle)));
        sin.set(p, i, static_cast<float>(std::sin(angle)));
      }
  }
};

std::vector<int32_t> some_positions(int64_t count, int64_t limit) {
  std::vector<int32_t> positions;
  for (int64_t t = 0; t < count; ++t) positions.push_back(static_cast<int32_t>(t * 7 % limit));
  return positions;
}

class RopeOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(RopeOnCpu);

TEST_P(RopeOnCpu, AgreesWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  for (const int64_t half : {1, 3, 8, 16, 17, 32, 48}) {
    for (const int64_t heads : {1, 3}) {
      for (const RopeDirection direction : {RopeDirection::forward, RopeDirection::backward}) {
        const Angles angles(11, half, DType::f32), wide(11, half, DType::f64);
        const auto positions = some_positions(200, 11);
        const Matrix x = Matrix::random(200, heads * 2 * half, DType::f32, 1, 1, 6), want = x.as(DType::f64);
        rope(cpu, x, 2 * half, positions, angles.cos.view(), angles.sin.view(), direction);
        rope(reference, want, 2 * half, positions, wide.cos.view(), wide.sin.view(), direction);
        expect_within(x, want,
                      [](int64_t, int64_t) { return 4 * kUnit; });  // two products and a sum of numbers up to 1
      }
    }
  }
}

TEST(Rope, BackwardIsTheAdjointOfForward) {
  const On reference("reference");
  const Angles angles(9, 5, DType::f64);
  const auto positions = some_positions(6, 9);
  const Matrix x = Matrix::random(6, 20, DType::f64, 1), v = Matrix::random(6, 20, DType::f64, 2), rx = x.copy(),
               rv = v.copy();
  rope(reference, rx, 10, positions, angles.cos.view(), angles.sin.view(), RopeDirection::forward);
  rope(reference, rv, 10, positions, angles.cos.view(), angles.sin.view(), RopeDirection::backward);
  EXPECT_NEAR(dot(rx, v), dot(x, rv), 1e-13);
  EXPECT_GT(std::abs(dot(rx, v) - dot(x, v)), 1e-3);  // and it is not the identity
}

TEST(Rope, RotatesHalvesAsHuggingFaceDoes) {
  const On reference("reference");
  Matrix x = Matrix::zeros(1, 4, DType::f64), cos(1, 2, DType::f64), sin(1, 2, DType::f64);
  for (int i = 0; i < 4; ++i) x.set(0, i, i + 1);
  cos.set(0, 0, 0), sin.set(0, 0, 1), cos.set(0, 1, 1), sin.set(0, 1, 0);
  const std::vector<int32_t> positions{0};
  rope(reference, x, 4, positions, cos.view(), sin.view(), RopeDirection::forward);
  EXPECT_EQ(x.at(0, 0), -3);
  EXPECT_EQ(x.at(0, 1), 2);
  EXPECT_EQ(x.at(0, 2), 1);
  EXPECT_EQ(x.at(0, 3), 4);
}

TEST(Rope, RefusesAPositionBeyondTheTable) {
  const On cpu("cpu");
  const Angles angles(4, 2, DType::f32);
  const Matrix x = Matrix::random(1, 4, DType::f32, 1);
  const std::vector<int32_t> positions{4};
  EXPECT_THROW(rope(cpu, x, 4, positions, angles.cos.view(), angles.sin.view(), RopeDirection::forward), InternalError);
}

}  // namespace
}  // namespace tessera::test
