#include <numeric>

#include "harness.h"

namespace tessera::test {
namespace {

std::vector<int64_t> draw_indices(int64_t count, int64_t first = 0) {
  std::vector<int64_t> indices(static_cast<size_t>(count));
  std::iota(indices.begin(), indices.end(), first);
  return indices;
}

Matrix ones(int64_t rows, int64_t cols, DType dtype = DType::f32) {
  Matrix matrix(rows, cols, dtype);
  for (int64_t i = 0; i < rows * cols; ++i) matrix.set(i / cols, i % cols, 1);
  return matrix;
}

class DropoutOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(DropoutOnCpu);

TEST_P(DropoutOnCpu, HasTheBitsOfTheReference) {
  const On reference("reference");
  for (const int64_t dim : {1, 7, 8, 9, 31, 64, 127, 128, 129, 300}) {
    for (const float probability : {0.0f, 0.1f, 0.5f, 0.999f, 0.999999f}) {
      auto indices = draw_indices(70, 5);
      indices[3] = int64_t{1} << 40;  // the high half of the counter
      const DropoutKey key{
          .seed = ~uint64_t{9}, .step = 12, .weight = 77, .probability = probability, .draw_index = indices};
      const Matrix x = Matrix::random(70, dim, DType::f32, 1, 1, 2),
                   start = Matrix::random(70, dim, DType::f32, 2, 1, 3);
      for (const Write write : {Write::assign, Write::accumulate}) {
        const Matrix want = start.copy();
        dropout(reference, x.view(), key, want, write);
        for (const int threads : {1, 2, 3}) {
          const Matrix y = start.copy();
          dropout(On("cpu", threads), x.view(), key, y, write);
          ASSERT_TRUE(y.equals_bitwise(want)) << dim << " columns, p " << probability;
          ASSERT_TRUE(y.is_padding_untouched());
        }
      }
    }
  }
}

TEST(Dropout, KeepsTheShareAndTheMean) {
  const On cpu("cpu");
  const auto indices = draw_indices(1000);
  const Matrix x = ones(1000, 100), y(1000, 100, DType::f32);
  for (const float p : {0.05f, 0.3f, 0.8f}) {
    dropout(cpu, x.view(), {.seed = 1, .step = 2, .weight = 3, .probability = p, .draw_index = indices}, y,
            Write::assign);
    int64_t kept = 0;
    for (int64_t i = 0; i < 100000; ++i) kept += y.at(i / 100, i % 100) != 0;
    const double deviation = std::sqrt(1e5 * p * (1 - p));
    EXPECT_NEAR(static_cast<double>(kept), 1e5 * (1 - p), 4.5 * deviation + 1);  // and 65536ths of p
    EXPECT_NEAR(dot(y, x), 1e5, (4.5 * deviation + 1) / (1 - p));
  }
}

TEST(Dropout, MaskDoesNotDependOnHowTheBatchIsSplit) {
  const On cpu("cpu");
  const auto indices = draw_indices(20, 100);
  const Matrix x = Matrix::random(20, 50, DType::f32, 1), whole(20, 50, DType::f32), parts(20, 50, DType::f32);
  DropoutKey key{.seed = 1, .step = 2, .weight = 3, .probability = 0.4f, .draw_index = indices};
  dropout(cpu, x.view(), key, whole, Write::assign);
  const std::span<const int64_t> all = indices;
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{13, 20}, {0, 6}, {6, 13}}) {
    key.draw_index = all.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    dropout(cpu, x.view().slice_rows(begin, end), key, parts.view().slice_rows(begin, end), Write::assign);
  }
  EXPECT_TRUE(parts.equals_bitwise(whole));
}

TEST(Dropout, MasksDifferBetweenSeedsStepsWeightsAndTokens) {
  const On cpu("cpu");
  const Matrix x = ones(2, 200);
  const auto mask = [&](uint64_t seed, uint64_t step, uint32_t weight, int64_t first) {
    const auto indices = draw_indices(2, first);
    Matrix y(2, 200, DType::f32);
    dropout(cpu, x.view(), {.seed = seed, .step = step, .weight = weight, .probability = 0.5f, .draw_index = indices},
            y, Write::assign);
    return y;
  };
  const Matrix base = mask(1, 1, 1, 0);
  for (const Matrix& other : {mask(2, 1, 1, 0), mask(1, 2, 1, 0), mask(1, 1, 2, 0), mask(1, 1, 1, 2)}) {
    int64_t equal = 0;
    for (int64_t i = 0; i < 400; ++i) equal += base.at(i / 200, i % 200) == other.at(i / 200, i % 200);
    EXPECT_NEAR(static_cast<double>(equal), 200, 50);  // five deviations
  }
}

TEST(Dropout, IsItsOwnAdjoint) {
  const On reference("reference");
  const auto indices = draw_indices(6);
  const DropoutKey key{.seed = 1, .step = 2, .weight = 3, .probability = 0.25f, .draw_index = indices};
  const Matrix x = Matrix::random(6, 40, DType::f64, 1), v = Matrix::random(6, 40, DType::f64, 2),
               dx(6, 40, DType::f64), dv(6, 40, DType::f64);
  dropout(reference, x.view(), key, dx, Write::assign);
  dropout(reference, v.view(), key, dv, Write::assign);
  EXPECT_NEAR(dot(dx, v), dot(x, dv), 1e-13);
}

}  // namespace
}  // namespace tessera::test
