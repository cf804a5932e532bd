#include "core/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "core/error.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;

// Golden values of the portable index generator: other implementations draw the same pools from the same seeds.
TEST(Random, HashesAreTheGoldenOnes) {
  EXPECT_EQ(mix64(0), 0xe220a8397b1dcdafu);
  EXPECT_EQ(mix64(1), 0x910a2dec89025cc1u);
  EXPECT_EQ(hash_key({7, 0, 0, 3}), 0xdc13ad580762ba80u);
}

TEST(Random, DistinctDrawsAreTheGoldenOnes) {
  EXPECT_THAT(draw_distinct(hash_key({7, 0, 0, 3}), 16, 6), ElementsAre(1, 12, 15, 11, 4, 9));
  EXPECT_THAT(draw_distinct(hash_key({7, 0, 1, 3}), 16, 6), ElementsAre(5, 14, 10, 8, 11, 12));
}

TEST(Random, DistinctDrawsOfAllNumbersAreAPermutation) {
  for (int64_t n : {1, 2, 7, 100}) {
    const std::vector<int32_t> drawn = draw_distinct(9, n, n);
    const std::set<int32_t> seen(drawn.begin(), drawn.end());
    EXPECT_EQ(static_cast<int64_t>(seen.size()), n);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), n - 1);
  }
  EXPECT_TRUE(draw_distinct(9, 5, 0).empty());
}

TEST(Random, FewerDistinctDrawsAreAPrefixOfMore) {
  const std::vector<int32_t> more = draw_distinct(3, 50, 20);
  for (int64_t q = 0; q < 20; ++q)
    EXPECT_EQ(draw_distinct(3, 50, q), std::vector<int32_t>(more.begin(), more.begin() + q));
}

TEST(Random, MoreDistinctDrawsThanNumbersIsOurMistake) {
  EXPECT_THROW(draw_distinct(1, 5, 6), InternalError);
  EXPECT_THROW(draw_distinct(1, 5, -1), InternalError);
}

TEST(Random, DrawsBelowAreEvenlySpread) {
  constexpr int kDraws = 70000, kNumbers = 7;
  std::vector<int> counts(kNumbers);
  for (int i = 0; i < kDraws; ++i) ++counts[draw_below(42, static_cast<uint64_t>(i), kNumbers)];
  // Binomial: mean 10000, standard deviation 93; five of them.
  for (int count : counts) EXPECT_NEAR(count, kDraws / kNumbers, 465);
}

// The known answers that Random123 publishes for philox4x32 with 10 rounds.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_THAT(philox4x32({0, 0, 0, 0}, {0, 0}), ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  constexpr uint32_t kOnes = 0xffffffffu;
  EXPECT_THAT(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
              ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  EXPECT_THAT(philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
              ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

TEST(RandomStream, IsPhiloxOfSeedStreamAndIndex) {
  const uint64_t seed = 0x299f31d0a4093822u, stream = 0x0370734413198a2eu, block = 0x05a308d3243f6a88u;
  const auto words = philox4x32({0x243f6a88u, 0x05a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u});
  for (uint64_t lane = 0; lane < 4; ++lane) EXPECT_EQ(RandomStream(seed, stream).bits(4 * block + lane), words[lane]);
}

TEST(RandomStream, UniformsStayBelowOne) {
  EXPECT_EQ(to_unit(0), 0.0f);
  EXPECT_LT(to_unit(0xffffffffu), 1.0f);
  EXPECT_EQ(to_unit(0x80000000u), 0.5f);
}

TEST(RandomStream, NormalsHaveTheMomentsOfTheStandardNormal) {
  constexpr int kDraws = 100000;
  const RandomStream stream(1, 2);
  double sum = 0, squares = 0, fourth = 0, neighbours = 0, previous = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.normal(static_cast<uint64_t>(i));
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
    neighbours += x * previous;
    previous = x;
  }
  // Five standard deviations of each estimate: sqrt(1/n), sqrt(2/n), sqrt(96/n), sqrt(1/n).
  const double unit = 5 / std::sqrt(kDraws);
  EXPECT_NEAR(sum / kDraws, 0, unit);
  EXPECT_NEAR(squares / kDraws, 1, unit * std::sqrt(2));
  EXPECT_NEAR(fourth / kDraws, 3, unit * std::sqrt(96));
  EXPECT_NEAR(neighbours / kDraws, 0, unit);
}

class PermuteIndex : public ::testing::TestWithParam<uint64_t> {};

TEST_P(PermuteIndex, IsABijection) {
  const uint64_t n = GetParam();
  for (uint64_t key : {uint64_t{0}, uint64_t{1}, ~uint64_t{0}}) {
    std::set<uint64_t> images;
    for (uint64_t i = 0; i < n; ++i) images.insert(permute_index(key, n, i));
    EXPECT_EQ(images.size(), n);
    EXPECT_LT(*images.rbegin(), n);
  }
}

TEST_P(PermuteIndex, RefusesAnIndexOutsideOfTheRange) {
  EXPECT_THROW(permute_index(1, GetParam(), GetParam()), InternalError);
}

INSTANTIATE_TEST_SUITE_P(Sizes, PermuteIndex, ::testing::Values(1, 2, 3, 10, 1000));

TEST(PermuteIndex, KeysGiveDifferentOrders) {
  std::set<std::vector<uint64_t>> orders;
  for (uint64_t key = 0; key < 100; ++key) {
    std::vector<uint64_t> order;
    for (uint64_t i = 0; i < 20; ++i) order.push_back(permute_index(key, 20, i));
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 100u);
}

TEST(PermuteIndex, SendsTheFirstIndexEverywhere) {
  // A shuffle's first item should be any item: chi-square over 4000 keys, 9 degrees of freedom, p = 1e-4 at 33.7.
  std::vector<int> counts(10);
  for (uint64_t key = 0; key < 4000; ++key) ++counts[permute_index(key, 10, 0)];
  double chi_square = 0;
  for (int count : counts) chi_square += (count - 400.0) * (count - 400.0) / 400.0;
  EXPECT_LT(chi_square, 33.7);
}

TEST(PermuteIndex, WorksOnRangesOfMoreThan32Bits) {
  const uint64_t n = (uint64_t{1} << 62) + 12345;
  std::set<uint64_t> images;
  for (uint64_t i = 0; i < 1000; ++i) images.insert(permute_index(5, n, n - 1 - i));
  EXPECT_EQ(images.size(), 1000u);
  EXPECT_LT(*images.rbegin(), n);
}

TEST(Fnv1a, GivesThePublishedValues) {
  EXPECT_EQ(fnv1a("", 0), 0xcbf29ce484222325u);
  EXPECT_EQ(fnv1a("a", 1), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(fnv1a("foobar", 6), 0x85944171f73967e8u);
  EXPECT_EQ(fnv1a("bar", 3, fnv1a("foo", 3)), fnv1a("foobar", 6));
}

}  // namespace
}  // namespace tessera
