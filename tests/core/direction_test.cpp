#include "core/direction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>
#include <tuple>
#include <vector>

namespace tessera {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kSeed = 0x1234567855aa55aa;

// Golden words: other implementations of the same log draw the same directions.
TEST(Direction, GivesTheGoldenWords) {
  EXPECT_THAT(sign_block({.seed = kSeed, .round = 2, .machine = 1}, 0),
              ElementsAre(0x6accb7ffu, 0xd4a075a2u, 0xffbc9404u, 0x52c9cd44u));
  EXPECT_THAT(sign_block({.seed = kSeed, .round = 100000, .machine = 0xfffffffe, .sample = 3}, 7),
              ElementsAre(0x43dc7771u, 0x0e655d35u, 0x2ca19b44u, 0x80b79a71u));
  static_assert(sign_block({.seed = kSeed, .round = 2, .machine = kHadamardStream}, 0)[0] == 0xffdf3393u);
}

TEST(Direction, AWeightIsNegativeWhereItsBitIsSet) {
  const Direction z{.seed = kSeed, .round = 100000, .machine = 0xfffffffe, .sample = 3};
  // 0x43dc7771 = 0100 0011 1101 1100 0111 0111 0111 0001: bits 0, 4, 5, 6, 8 are set, 1, 2, 3, 7 are not.
  const std::vector<int> first{-1, 1, 1, 1, -1, -1, -1, 1, -1};
  for (uint64_t i = 0; i < first.size(); ++i) EXPECT_EQ(sign_at(z, 7 * 128 + i), first[i]) << i;
  EXPECT_EQ(sign_at(z, 7 * 128 + 32), -1);   // bit 0 of 0x0e655d35
  EXPECT_EQ(sign_at(z, 7 * 128 + 33), 1);    // bit 1
  EXPECT_EQ(sign_at(z, 7 * 128 + 127), -1);  // bit 31 of 0x80b79a71
  EXPECT_EQ(sign_at(z, 7 * 128 + 126), 1);
}

/// The counter's fields, read back as the wire format's description says.
std::tuple<uint64_t, uint32_t, uint32_t, uint32_t> fields_of(const std::array<uint32_t, 4>& counter) {
  const uint64_t block = uint64_t{counter[1] >> 16} << 32 | counter[0];
  return {block, counter[1] & 0xffff, counter[2], counter[3]};
}

TEST(Direction, AMillionCountersAreDistinct) {
  // Few values in every field, the borders of its width among them: neighbours differ in one field by one bit.
  const RandomStream random(3, 0);
  std::vector<std::tuple<uint64_t, uint32_t, uint32_t, uint32_t>> inputs;
  for (uint64_t i = 0; i < 1000000; ++i) {
    const uint64_t low = random.bits(4 * i), high = random.bits(4 * i + 1);
    const uint64_t block = i % 4 == 0   ? low << 16 >> 4 ^ high
                           : i % 4 == 1 ? (low & 0xff) << 32 | (high & 0xff)
                           : i % 4 == 2 ? 0xffffffffffff - (low & 0xffff)
                                        : (low & 0xffffff);
    const uint32_t fields = random.bits(4 * i + 2);
    inputs.emplace_back(block & 0xffffffffffff, i % 8 < 4 ? fields & 0xff : fields & 0xffff, fields >> 16 & 0x3f,
                        i % 16 < 8 ? fields >> 22 : ~fields);
  }
  std::sort(inputs.begin(), inputs.end());
  inputs.erase(std::unique(inputs.begin(), inputs.end()), inputs.end());
  ASSERT_GT(inputs.size(), 990000u);
  std::vector<std::array<uint32_t, 4>> counters;
  for (const auto& [block, sample, machine, round] : inputs) {
    counters.push_back(
        direction_counter({.round = round, .machine = machine, .sample = static_cast<uint16_t>(sample)}, block));
    ASSERT_EQ(fields_of(counters.back()), std::tuple(block, sample, machine, round));
  }
  std::sort(counters.begin(), counters.end());
  EXPECT_EQ(std::unique(counters.begin(), counters.end()), counters.end());
}

TEST(Direction, NeighbouringFieldsDoNotAlias) {
  const auto counter = [](uint32_t round, uint32_t machine, uint16_t sample, uint64_t block) {
    return direction_counter({.round = round, .machine = machine, .sample = sample}, block);
  };
  std::set<std::array<uint32_t, 4>> seen;
  // One at the bottom and the top of every field: a field that is cut or leaks into its neighbour repeats a counter.
  size_t count = 0;
  for (const uint32_t round : {0u, 1u, 1u << 31})
    for (const uint32_t machine : {0u, 1u, 1u << 31})
      for (const int sample : {0, 1, 1 << 15})
        for (const uint64_t block : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 31, uint64_t{1} << 32, uint64_t{1} << 47})
          seen.insert(counter(round, machine, static_cast<uint16_t>(sample), block)), ++count;
  EXPECT_EQ(seen.size(), count);
}

TEST(Direction, StreamsOfDifferentFieldsAreUncorrelated) {
  const Direction base{.seed = 5, .round = 6, .machine = 7, .sample = 8};
  constexpr int64_t kWeights = 1 << 16;
  for (const Direction& other : {Direction{6, 6, 7, 8}, Direction{5, 7, 7, 8}, Direction{5, 6, 8, 8},
                                 Direction{5, 6, 7, 9}, Direction{uint64_t{5} | uint64_t{1} << 32, 6, 7, 8}}) {
    int64_t product = 0;
    for (uint64_t p = 0; p < kWeights; ++p) product += sign_at(base, p) * sign_at(other, p);
    EXPECT_LT(std::abs(product), 5 * std::sqrt(kWeights));
  }
}

bool is_negative(uint32_t k, uint64_t p, uint32_t lanes) { return std::popcount(k & (p % lanes)) % 2 == 1; }

TEST(HadamardLane, HasTheSignsOfTheWalshMatrix) {
  for (const uint32_t lanes : {1u, 2u, 4u, 16u, 32u, 64u, 128u, 256u, 8192u, 1u << 20}) {
    for (uint32_t i = 0; i < 40; ++i) {
      const uint32_t k = i < 20 ? i % lanes : (lanes - 1 - i * 37 % lanes) % lanes;
      for (uint64_t word : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{3}, uint64_t{5}, uint64_t{255},
                            uint64_t{4097}, (uint64_t{1} << 27) + 3, (uint64_t{1} << 40) + 12345}) {
        const uint32_t bits = walsh_word(k, lanes, word);
        for (uint64_t bit = 0; bit < 32; ++bit)
          ASSERT_EQ(bits >> bit & 1, is_negative(k, 32 * word + bit, lanes))
              << k << " of " << lanes << ", word " << word;
      }
    }
  }
}

TEST(HadamardLane, TurnsTheSignsOfItsDirection) {
  const Direction signs{.seed = kSeed, .round = 2, .machine = kHadamardStream, .sample = 1};
  for (const uint32_t lanes : {1u, 8u, 64u, 512u}) {
    for (const uint32_t k : {0u, 1u % lanes, lanes / 2, lanes - 1}) {
      Direction z = signs;
      z.lane = k;
      z.lanes = lanes;
      for (uint64_t p = 900; p < 2100; ++p)
        ASSERT_EQ(sign_at(z, p), sign_at(signs, p) * (is_negative(k, p, lanes) ? -1 : 1));
    }
  }
}

TEST(HadamardLane, TwoLanesAreOrthogonalOverEachBlockOfK) {
  for (const uint32_t lanes : {2u, 16u, 256u}) {
    for (uint32_t i = 0; i < 30; ++i) {
      const uint32_t a = i * 7 % lanes, b = (a + 1 + i % (lanes - 1)) % lanes;
      ASSERT_NE(a, b);
      const Direction za{.seed = 9, .round = 1, .machine = kHadamardStream, .lane = a, .lanes = lanes};
      const Direction zb{.seed = 9, .round = 1, .machine = kHadamardStream, .lane = b, .lanes = lanes};
      for (uint64_t start = 3 * lanes; start < 7 * lanes; start += lanes) {
        int product = 0;
        for (uint64_t p = start; p < start + lanes; ++p) product += sign_at(za, p) * sign_at(zb, p);
        ASSERT_EQ(product, 0) << a << " and " << b << " of " << lanes;
      }
    }
  }
}

}  // namespace
}  // namespace tessera
