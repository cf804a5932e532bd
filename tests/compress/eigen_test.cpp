#include "compress/eigen.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace tessera {
namespace {

Matrix random_symmetric(std::mt19937_64& random, int64_t n) {
  std::normal_distribution<double> normal;
  Matrix m(n, n);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) m.row(i)[j] = m.row(j)[i] = normal(random);
  return m;
}

/// The largest elements of  M - sum of values · vectors, relative to M's, and of  V Vᵀ - 1.
std::pair<double, double> errors_of(const Matrix& m, const SymmetricEigen& eigen) {
  const int64_t n = m.rows();
  double largest = 0, error = 0, angle = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < n; ++k) sum += eigen.values[k] * eigen.vectors.row(k)[i] * eigen.vectors.row(k)[j];
      largest = std::max(largest, std::abs(m.row(i)[j]));
      error = std::max(error, std::abs(sum - m.row(i)[j]));
      angle = std::max(angle, std::abs(dot(eigen.vectors.row(i), eigen.vectors.row(j)) - (i == j)));
    }
  return {largest == 0 ? error : error / largest, angle};
}

void expect_taken_apart(const Matrix& m, const std::string& what) {
  const SymmetricEigen eigen = symmetric_eigen(m);
  const auto [error, angle] = errors_of(m, eigen);
  EXPECT_LT(error, 1e-13) << what;
  EXPECT_LT(angle, 1e-13) << what;
  for (size_t i = 1; i < eigen.values.size(); ++i) EXPECT_LE(eigen.values[i], eigen.values[i - 1]) << what;
}

TEST(SymmetricEigenTest, TakesRandomMatricesApart) {
  std::mt19937_64 random(31);
  for (int64_t n = 1; n <= 40; ++n) expect_taken_apart(random_symmetric(random, n), std::to_string(n));
  expect_taken_apart(random_symmetric(random, 130), "130");
}

TEST(SymmetricEigenTest, TakesSpecialMatricesApart) {
  constexpr int64_t kSize = 17;
  Matrix zero(kSize, kSize), one = zero, ones = zero, blocks = zero, graded = zero, tiny = zero, huge = zero;
  std::mt19937_64 random(32);
  const Matrix drawn = random_symmetric(random, kSize);
  for (int64_t i = 0; i < kSize; ++i)
    for (int64_t j = 0; j < kSize; ++j) {
      one.row(i)[j] = i == j;
      ones.row(i)[j] = 1;                                                    // one value of 17, sixteen of 0
      blocks.row(i)[j] = i / 4 == j / 4 ? drawn.row(i)[j] : 0;               // falls apart
      graded.row(i)[j] = drawn.row(i)[j] * std::exp2(-5.0 * double(i + j));  // over 50 decimal places
      tiny.row(i)[j] = drawn.row(i)[j] * 1e-180;
      huge.row(i)[j] = drawn.row(i)[j] * 1e180;
    }
  expect_taken_apart(zero, "zero");
  expect_taken_apart(one, "one");
  expect_taken_apart(ones, "ones");
  expect_taken_apart(blocks, "blocks");
  expect_taken_apart(graded, "graded");
  expect_taken_apart(tiny, "tiny");
  expect_taken_apart(huge, "huge");
}

TEST(SymmetricEigenTest, HasTheKnownValuesOfTheSecondDifference) {
  constexpr int64_t kSize = 50;  // 2 on the diagonal, -1 beside it: 2 - 2 cos(k pi / 51)
  Matrix m(kSize, kSize);
  for (int64_t i = 0; i < kSize; ++i) {
    m.row(i)[i] = 2;
    if (i) m.row(i)[i - 1] = m.row(i - 1)[i] = -1;
  }
  const SymmetricEigen eigen = symmetric_eigen(m);
  for (int64_t k = 1; k <= kSize; ++k)
    EXPECT_NEAR(eigen.values[kSize - k], 2 - 2 * std::cos(static_cast<double>(k) * M_PI / (kSize + 1)), 1e-14) << k;
}

TEST(Gram, IsTheSumOverColumns) {
  std::mt19937_64 random(33);
  std::normal_distribution<double> normal;
  Matrix m(5, 131);  // more than two blocks of columns
  for (int64_t i = 0; i < 5; ++i)
    for (double& value : m.row(i)) value = normal(random);
  const Matrix product = gram(m);
  for (int64_t i = 0; i < 5; ++i)
    for (int64_t j = 0; j < 5; ++j) EXPECT_EQ(product.row(i)[j], dot(m.row(i), m.row(j))) << i << " " << j;
}

}  // namespace
}  // namespace tessera
