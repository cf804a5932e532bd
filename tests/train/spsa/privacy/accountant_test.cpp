// What releases cost: figures of dp-accounting's RdpAccountant, given the same orders.

#include "train/spsa/privacy/accountant.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"

namespace tessera {
namespace {

TEST(Accountant, AgreesWithAnIndependentOne) {
  EXPECT_NEAR(epsilon_of(16000, {.q = 0.01, .sigma = 1}, 1e-5), 8.89833, 1e-5);
  EXPECT_NEAR(epsilon_of(1000, {.q = 0.05, .sigma = 2}, 1e-6), 4.48649, 1e-5);
  EXPECT_NEAR(epsilon_of(100, {.q = 1, .sigma = 20}, 1e-5), 2.16801, 1e-5);
  EXPECT_NEAR(epsilon_of(20000, {.q = 0.002, .sigma = 0.8}, 1e-5), 2.71892, 1e-5);
  EXPECT_EQ(epsilon_of(0, {.q = 0.01, .sigma = 1}, 1e-5), 0);
}

TEST(Accountant, DivergenceOfAWholeSampleIsTheGaussians) {
  for (const int64_t order : {2, 17, 1024})
    EXPECT_DOUBLE_EQ(renyi_divergence(order, {.q = 1, .sigma = 3}), static_cast<double>(order) / 18);
  // A sample of nearly all costs nearly as much, and half of the documents less.
  EXPECT_NEAR(renyi_divergence(8, {.q = 1 - 1e-9, .sigma = 3}), 8 / 18.0, 1e-6);
  EXPECT_LT(renyi_divergence(8, {.q = 0.5, .sigma = 3}), 8 / 18.0);
}

TEST(Accountant, NumberOfReleasesIsTheLargestWithin) {
  for (const Release release : {Release{0.01, 1}, Release{0.05, 2}, Release{1, 20}}) {
    const int64_t within = releases_within(3, release, 1e-5);
    ASSERT_GT(within, 0);
    EXPECT_LE(epsilon_of(within, release, 1e-5), 3);
    EXPECT_GT(epsilon_of(within + 1, release, 1e-5), 3);
  }
  EXPECT_EQ(releases_within(0.01, {.q = 1, .sigma = 1}, 1e-5), 0);
}

TEST(Accountant, NoiseIsTheSmallestThatKeepsAllReleasesWithin) {
  for (const double q : {0.005, 0.1, 1.0})
    for (const int64_t releases : {1, 800, 16000}) {
      const double sigma = smallest_noise(2, releases, q, 1e-5);
      EXPECT_LE(epsilon_of(releases, {q, sigma}, 1e-5), 2) << q << " " << releases;
      EXPECT_GT(epsilon_of(releases, {q, sigma - 3e-4}, 1e-5), 2) << q << " " << releases;
      EXPECT_NEAR(std::remainder(sigma, 1e-4), 0, 1e-9);
    }
  EXPECT_THROW(smallest_noise(1e-9, 16000, 1, 1e-5), UserError);
}

}  // namespace
}  // namespace tessera
