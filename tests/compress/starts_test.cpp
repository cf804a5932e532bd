#include "compress/starts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/matrix.h"
#include "compress/random_weights.h"
#include "core/error.h"

namespace tessera {
namespace {

using test::at;
using test::random_weight;

std::vector<double> random_moments(std::mt19937_64& random, int64_t channels) {
  return test::random_moments(random, channels, 100);
}

/// (child - gain · parent - Btᵀ A) diag(sigma)^(1/2), summed in squares.
double loss_of(const ConstView& child, const ConstView& parent, const ConstView& gain, const LowRankStart* start,
               std::span<const double> sigma) {
  double sum = 0;
  for (int64_t i = 0; i < child.rows(); ++i)
    for (int64_t j = 0; j < child.cols(); ++j) {
      double rest = at(child, i, j) - (gain.empty() ? 1 : element(gain, i)) * at(parent, i, j);
      if (start)
        for (int64_t k = 0; k < start->a.shape()[0]; ++k) rest -= at(start->bt, k, i) * at(start->a, k, j);
      sum += sigma[j] * rest * rest;
    }
  return sum;
}

/// Singular values by one-sided Jacobi rotations of the rows: slow, plain, and another way than the one under test.
std::vector<double> singular_values(Matrix m) {
  if (m.rows() > m.cols()) m = transposed(m);
  for (int sweep = 0; sweep < 60; ++sweep)
    for (int64_t p = 0; p < m.rows(); ++p)
      for (int64_t q = p + 1; q < m.rows(); ++q) {
        const double a = dot(m.row(p), m.row(p)), b = dot(m.row(q), m.row(q)), c = dot(m.row(p), m.row(q));
        if (std::abs(c) <= 1e-15 * std::sqrt(a * b)) continue;
        const double zeta = (b - a) / (2 * c), t = (zeta < 0 ? -1 : 1) / (std::abs(zeta) + std::hypot(zeta, 1.0)),
                     cosine = 1 / std::hypot(t, 1.0), sine = t * cosine;
        for (int64_t j = 0; j < m.cols(); ++j) {
          const double x = m.row(p)[j], y = m.row(q)[j];
          m.row(p)[j] = cosine * x - sine * y;
          m.row(q)[j] = sine * x + cosine * y;
        }
      }
  std::vector<double> values;
  for (int64_t i = 0; i < m.rows(); ++i) values.push_back(std::sqrt(dot(m.row(i), m.row(i))));
  std::sort(values.rbegin(), values.rend());
  return values;
}

TEST(ScaleStart, IsTheLeastSquaresGainOfEachOutput) {
  std::mt19937_64 random(41);
  std::normal_distribution<double> normal;
  for (int round = 0; round < 20; ++round) {
    const Tensor child = random_weight(random, 4, 6, DType::bf16), parent = random_weight(random, 4, 6);
    const auto sigma = random_moments(random, 6);
    const Tensor gain = scale_start(child, parent, sigma);
    const double best = loss_of(child, parent, gain, nullptr, sigma);
    EXPECT_LT(best, loss_of(child, parent, {}, nullptr, sigma));
    for (int neighbour = 0; neighbour < 20; ++neighbour) {
      Tensor other({4}, DType::f64);
      for (int64_t i = 0; i < 4; ++i) set_element(other, i, element(gain, i) + 1e-2 * normal(random));
      EXPECT_LT(best, loss_of(child, parent, other, nullptr, sigma));
    }
  }
}

TEST(ScaleStart, IsExactForMultiplesAndOneWhereTheParentIsZero) {
  std::mt19937_64 random(42);
  const Tensor parent = random_weight(random, 3, 5);
  Tensor child({3, 5}, DType::f32);
  for (int64_t i = 0; i < 15; ++i) set_element(child, i, element(parent, i) * (i < 5 ? 0.5 : i < 10 ? -4 : 1));
  for (int64_t i = 10; i < 15; ++i) set_element(parent, i, 0);
  const Tensor gain = scale_start(child, parent, random_moments(random, 5));
  EXPECT_EQ(element(gain, 0), 0.5);
  EXPECT_EQ(element(gain, 1), -4);
  EXPECT_EQ(element(gain, 2), 1);
}

class LowRank : public testing::TestWithParam<std::pair<int64_t, int64_t>> {};

TEST_P(LowRank, ErrorIsTheTailOfTheSingularValues) {
  const auto [out, in] = GetParam();
  std::mt19937_64 random(43);
  const Tensor child = random_weight(random, out, in), parent = random_weight(random, out, in, DType::f16);
  const auto sigma = random_moments(random, in);
  const Tensor gain = scale_start(child, parent, sigma);
  Matrix weighted(out, in);
  for (int64_t i = 0; i < out; ++i)
    for (int64_t j = 0; j < in; ++j)
      weighted.row(i)[j] = (at(child, i, j) - element(gain, i) * at(parent, i, j)) * std::sqrt(sigma[j]);
  const auto values = singular_values(weighted);
  double all = 0;
  for (const double value : values) all += value * value;
  double tail = all;
  for (int64_t rank = 1; rank <= std::min(out, in); ++rank) {
    tail -= values[static_cast<size_t>(rank - 1)] * values[static_cast<size_t>(rank - 1)];
    const LowRankStart start = low_rank_start(child, parent, gain, sigma, rank, "block 1 q_proj");
    EXPECT_NEAR(start.before, all, 1e-12 * all);
    EXPECT_NEAR(start.error, std::max(0.0, tail), 1e-11 * all) << rank;
    // What is stored, in f32, does it.
    EXPECT_NEAR(loss_of(child, parent, gain, &start, sigma), std::max(0.0, tail), 1e-6 * all) << rank;
  }
}

TEST_P(LowRank, AtFullRankReproducesTheChild) {
  const auto [out, in] = GetParam();
  std::mt19937_64 random(44);
  const Tensor child = random_weight(random, out, in, DType::bf16), parent = random_weight(random, out, in);
  // Moments over ten orders of magnitude, as channels of real activations have them.
  std::vector<double> sigma;
  for (int64_t j = 0; j < in; ++j) sigma.push_back(std::pow(10.0, static_cast<double>(random() % 11) - 5));
  const LowRankStart start = low_rank_start(child, parent, {}, sigma, std::max(out, in), "block 1 q_proj");
  for (int64_t i = 0; i < out; ++i)
    for (int64_t j = 0; j < in; ++j) {
      double sum = at(parent, i, j);
      for (int64_t k = 0; k < std::max(out, in); ++k) sum += at(start.bt, k, i) * at(start.a, k, j);
      EXPECT_NEAR(sum, at(child, i, j), 1e-4) << i << " " << j;
    }
}

TEST_P(LowRank, BalancesItsFactors) {
  const auto [out, in] = GetParam();
  std::mt19937_64 random(45);
  const Tensor child = random_weight(random, out, in), parent = random_weight(random, out, in);
  const auto sigma = random_moments(random, in);
  const LowRankStart start = low_rank_start(child, parent, {}, sigma, 1, "block 1 q_proj");
  double of_a = 0, of_bt = 0;  // |S^(1/2) v|² and |S^(1/2) u|²: both are the singular value
  for (int64_t j = 0; j < in; ++j) of_a += at(start.a, 0, j) * at(start.a, 0, j) * sigma[j];
  for (int64_t i = 0; i < out; ++i) of_bt += at(start.bt, 0, i) * at(start.bt, 0, i);
  EXPECT_NEAR(of_a, of_bt, 1e-5 * of_a);
  EXPECT_NEAR(of_a * of_bt, start.before - start.error, 1e-5 * start.before);
}

INSTANTIATE_TEST_SUITE_P(Shapes, LowRank,
                         testing::Values(std::pair{1, 1}, std::pair{1, 7}, std::pair{7, 1}, std::pair{6, 6},
                                         std::pair{5, 12}, std::pair{12, 5}),
                         [](const auto& info) { return fmt::format("{}x{}", info.param.first, info.param.second); });

TEST(LowRankStartTest, IsBetterThanTheUnweightedOne) {
  std::mt19937_64 random(46);
  for (int round = 0; round < 10; ++round) {
    const Tensor child = random_weight(random, 8, 10), parent = random_weight(random, 8, 10);
    const auto sigma = random_moments(random, 10);
    const std::vector<double> ones(10, 1.0);
    const LowRankStart weighted = low_rank_start(child, parent, {}, sigma, 3, "b"),
                       unweighted = low_rank_start(child, parent, {}, ones, 3, "b");
    EXPECT_LT(loss_of(child, parent, {}, &weighted, sigma), loss_of(child, parent, {}, &unweighted, sigma));
    EXPECT_LT(loss_of(child, parent, {}, &unweighted, ones), loss_of(child, parent, {}, &weighted, ones));
  }
}

TEST(LowRankStartTest, OfACopyIsNothing) {
  std::mt19937_64 random(47);
  const Tensor child = random_weight(random, 5, 8);
  const auto sigma = random_moments(random, 8);
  const LowRankStart start = low_rank_start(child, child, {}, sigma, 4, "b");
  EXPECT_EQ(start.before, 0);
  EXPECT_EQ(start.error, 0);
  for (int64_t i = 0; i < start.a.shape().count(); ++i) EXPECT_EQ(element(start.a, i), 0);
  for (int64_t i = 0; i < start.bt.shape().count(); ++i) EXPECT_EQ(element(start.bt, i), 0);
}

TEST(LowRankStartTest, FindsADeltaThatIsOfLowRank) {
  std::mt19937_64 random(48);
  const Tensor parent = random_weight(random, 30, 20), a = random_weight(random, 2, 20),
               b = random_weight(random, 30, 2);
  Tensor child({30, 20}, DType::f64);
  for (int64_t i = 0; i < 30; ++i)
    for (int64_t j = 0; j < 20; ++j)
      set_element(child, i * 20 + j, at(parent, i, j) + at(b, i, 0) * at(a, 0, j) + at(b, i, 1) * at(a, 1, j));
  const auto sigma = random_moments(random, 20);
  const LowRankStart start = low_rank_start(child, parent, {}, sigma, 2, "b");
  EXPECT_LT(start.error, 1e-13 * start.before);
  EXPECT_GT(low_rank_start(child, parent, {}, sigma, 1, "b").error, 1e-3 * start.before);
}

TEST(LowRankStartTest, RefusesWhatIsNotFinite) {
  std::mt19937_64 random(49);
  const Tensor child = random_weight(random, 3, 4), parent = random_weight(random, 3, 4);
  set_element(child, 9, std::numeric_limits<double>::infinity());
  try {
    low_rank_start(child, parent, {}, std::vector<double>(4, 1.0), 2, "block 7 mlp.down_proj");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(
        error.message(),
        "fold: block 7 mlp.down_proj: row 2 of its weights, or their inputs on the calibration rows, are not finite");
  }
}

}  // namespace
}  // namespace tessera
