#include "core/minifloat.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "core/random.h"

namespace tessera {
namespace {

constexpr double kAlmostOne = 1 - 0x1p-53;

TEST(Vote, BytesAreTheGoldenIntegers) {
  const std::map<int, int32_t> table{{0x00, 0},      {0x07, 7},  {0x08, 8},    {0x0f, 15},      {0x10, 16},
                                     {0x12, 20},     {0x17, 30}, {0x31, 288},  {0x3f, 960},     {0x40, 1024},
                                     {0x7f, 245760}, {0x81, -1}, {0xa5, -104}, {0xff, -245760}, {0x80, 0}};
  for (const auto& [byte, value] : table) EXPECT_EQ(decode_vote(static_cast<uint8_t>(byte)), value) << byte;
  static_assert(decode_vote(0x7f) == kLargestVote);
}

TEST(Vote, IntegersGrowWithTheByte) {
  for (int byte = 1; byte < 0x80; ++byte) {
    const int32_t here = decode_vote(static_cast<uint8_t>(byte)), below = decode_vote(static_cast<uint8_t>(byte - 1));
    EXPECT_GT(here, below) << byte;
    EXPECT_EQ(decode_vote(static_cast<uint8_t>(byte | 0x80)), -here);
    EXPECT_LE(here - below, std::max(1, here / 8)) << byte;  // eight steps an octave
  }
}

TEST(Vote, EveryByteComesBackWhateverTheDraw) {
  for (int byte = 0; byte < 256; ++byte) {
    if (byte == kInvalidVote) continue;
    for (const int unit : {9, 0, -20, 30})
      for (const double uniform : {0.0, 0.5, kAlmostOne})
        ASSERT_EQ(encode_vote(std::ldexp(decode_vote(static_cast<uint8_t>(byte)), -unit), unit, uniform), byte)
            << byte << " with u = 2^-" << unit;
  }
}

TEST(Vote, WhatIsNotFiniteIsInvalidAndNothingElseIs) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const double g : {inf, -inf, std::nan(""), -std::nan("")}) EXPECT_EQ(encode_vote(g, 9, 0), kInvalidVote);
  const double tiny = std::numeric_limits<double>::denorm_min(), huge = std::numeric_limits<double>::max();
  for (const int unit : {9, -20, 30}) {
    EXPECT_EQ(encode_vote(-0.0, unit, 0), 0);
    EXPECT_EQ(encode_vote(-tiny, unit, 0.5), 0);  // rounds to zero: never to "minus zero"
    EXPECT_EQ(encode_vote(tiny, unit, 0.5), 0);
    EXPECT_EQ(encode_vote(huge, unit, 0.5), 0x7f);
    EXPECT_EQ(encode_vote(-huge, unit, 0.5), 0xff);
  }
  const RandomStream random(1, 0);
  for (uint64_t i = 0; i < 200000; ++i) {
    const double g = std::ldexp(random.uniform(3 * i) - 0.5, static_cast<int>(random.bits(3 * i + 1) % 60) - 40);
    ASSERT_NE(encode_vote(g, 9, random.uniform(3 * i + 2)), kInvalidVote) << g;
  }
}

TEST(Vote, SaturatesAtTheLargestInteger) {
  EXPECT_EQ(encode_vote(245759.999, 0, kAlmostOne), 0x7e);
  EXPECT_EQ(encode_vote(245759.999, 0, 0.99), 0x7f);
  EXPECT_EQ(encode_vote(245760, 0, kAlmostOne), 0x7f);
  EXPECT_EQ(encode_vote(300000, 0, kAlmostOne), 0x7f);
  EXPECT_EQ(encode_vote(-1e9, 0, 0), 0xff);
}

TEST(Vote, RoundsUpFromTheTopOfAnOctaveIntoTheNext) {
  EXPECT_EQ(decode_vote(encode_vote(15.5, 0, 0.49)), 16);
  EXPECT_EQ(decode_vote(encode_vote(15.5, 0, 0.51)), 15);
  EXPECT_EQ(decode_vote(encode_vote(31, 0, 0.49)), 32);
  EXPECT_EQ(decode_vote(encode_vote(31, 0, 0.51)), 30);
  EXPECT_EQ(decode_vote(encode_vote(-992, 0, 0.49)), -1024);
  EXPECT_EQ(decode_vote(encode_vote(-992, 0, 0.51)), -960);
}

/// Numbers over all octaves, both signs, borders among them.
std::vector<double> gradients() {
  std::vector<double> all{0.25, 0.999, 7.5,  14.9,  15.01,  15.99,  16.01,
                          30.2, 31.99, 32.5, 65535, 131071, 131073, 240000};
  const RandomStream random(7, 0);
  for (uint64_t i = 0; i < 200; ++i) all.push_back(std::exp2(-4 + 21.9 * random.uniform(i)));
  for (size_t i = 0; i < all.size(); i += 2) all[i] = -all[i];
  return all;
}

TEST(Vote, EvenlySpacedDrawsAverageToTheNumber) {
  constexpr int kDraws = 4096;
  for (const double g : gradients()) {
    double sum = 0;
    for (int i = 0; i < kDraws; ++i) sum += decode_vote(encode_vote(g / 512, 9, (i + 0.5) / kDraws));
    const double step = std::max(1.0, std::exp2(std::floor(std::log2(std::fabs(g))) - 3));
    EXPECT_NEAR(sum / kDraws, g, step / kDraws) << g;
  }
}

TEST(Vote, IsUnbiased) {
  constexpr int kDraws = 20000;
  const RandomStream random(11, 0);
  uint64_t draw = 0;
  for (const double g : gradients()) {
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double error = decode_vote(encode_vote(g, 0, random.uniform(draw++))) - g;
      sum += error;
      squares += error * error;
    }
    EXPECT_LE(std::fabs(sum / kDraws), 4.5 * std::sqrt(squares) / kDraws + 1e-9 * std::fabs(g)) << g;
  }
}

// What the code adds to the variance of a Gaussian g, relative to its own, at u = 2^-9;
// and the gain lost to saturation.
TEST(Vote, CostsLittleVarianceOverFourDecadesOfScale) {
  struct Case {
    double sigma, variance, gain;
  };
  constexpr int kDraws = 200000;
  const RandomStream random(13, 0);
  for (const auto& [sigma, variance, gain] :
       {Case{0.01, 6.4e-3, 1}, Case{1, 1.4e-3, 1}, Case{4, 1.4e-3, 1}, Case{256, 1.7e-2, 0.94}}) {
    double error = 0, product = 0, square = 0;
    for (uint64_t i = 0; i < kDraws; ++i) {
      const double g = sigma * random.normal(i);
      const double coded = decode_vote(encode_vote(g, 9, random.uniform(4 * kDraws + i))) / 512.0;
      error += (coded - g) * (coded - g);
      product += coded * g;
      square += g * g;
    }
    EXPECT_NEAR(error / square, variance, 0.15 * variance) << sigma;
    EXPECT_NEAR(product / square, gain, 0.005) << sigma;
  }
}

}  // namespace
}  // namespace tessera
