#include "infer/draws.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace tessera {
namespace {

// From the formulas alone: SplitMix64's hash and Philox written out once more, in another language.
TEST(Draws, HaveTheValuesOfTheirFormula) {
  EXPECT_EQ(draw_uniform(0, 0, 0), 0x1.533d9cbc471dcp-1);
  EXPECT_EQ(draw_uniform(0, 0, 1), 0x1.cde8483195288p-3);
  EXPECT_EQ(draw_uniform(0, 1, 0), 0x1.a9b6a013d4fd1p-1);
  EXPECT_EQ(draw_uniform(7, 3, 1000), 0x1.709f645eecc9fp-1);
  EXPECT_EQ(draw_uniform(0xfedcba9876543210u, 15, int64_t{1} << 33), 0x1.258c90729a6d8p-1);
}

TEST(Draws, AreEvenInTheUnitInterval) {
  constexpr int kCount = 20000, kBins = 10;
  std::vector<int> bins(kBins, 0);
  for (int t = 0; t < kCount; ++t) {
    const double u = draw_uniform(12345, t % 7, t / 7);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ++bins[static_cast<size_t>(u * kBins)];
  }
  // Five standard deviations of a bin's count, which is about 42.
  for (const int count : bins) EXPECT_NEAR(count, kCount / kBins, 212);
}

TEST(Draws, DifferForEverySeedSampleAndToken) {
  std::set<double> all;
  for (uint64_t seed = 0; seed < 10; ++seed)
    for (int64_t sample = 0; sample < 10; ++sample)
      for (int64_t token = 0; token < 10; ++token) all.insert(draw_uniform(seed, sample, token));
  EXPECT_EQ(all.size(), 1000u);
}

TEST(Draws, SeedOfARequestIsOfItsCustomId) {
  EXPECT_EQ(default_seed(0, "question-1"), 0x882e85e458e3863eu);
  EXPECT_EQ(default_seed(42, "question-1"), 0x3376fbff408d35c7u);
  EXPECT_EQ(default_seed(42, "größe/0"), 0x70d0543085bf11d0u);
}

TEST(Draws, SeedOfARequestWithoutCustomIdIsOfItsPromptAndItsTwins) {
  EXPECT_EQ(default_seed(0, std::vector<int32_t>{1, 2, 3}, 0), 0x16ddd33eb49fab81u);
  EXPECT_EQ(default_seed(0, std::vector<int32_t>{1, 2, 3}, 1), 0x1e3eec40445c7953u);
  EXPECT_EQ(default_seed(42, std::vector<int32_t>{70000, 0, 128255}, 5), 0xfbdc3219449cb18du);
  EXPECT_EQ(default_seed(9, std::vector<int32_t>{}, 2), 0x597cfee4b72dfcbdu);
}

}  // namespace
}  // namespace tessera
