#pragma once
// Votes and weights to test with.

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/minifloat.h"
#include "harness.h"
#include "kernels/votes.h"

namespace tessera::test {

inline constexpr uint64_t kSeed = 0x1234567855aa55aa;

inline float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

inline bool equal_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

inline std::vector<VoteTerm> make_votes(int64_t count, uint64_t seed) {
  const RandomStream random(seed, 5);
  std::vector<VoteTerm> votes;
  for (int64_t i = 0; i < count; ++i) {
    const auto draw = static_cast<uint64_t>(i);
    votes.push_back({.machine = random.bits(3 * draw) % 0xffffff00u,
                     .sample = static_cast<uint16_t>(random.bits(3 * draw + 1)),
                     .value = decode_vote(static_cast<uint8_t>(random.bits(3 * draw + 2)))});
  }
  return votes;
}

/// Ordinary weights between denormals, zeros of both signs and the largest numbers.
inline std::vector<float> make_weights(int64_t count, uint64_t seed) {
  const RandomStream random(seed, 6);
  std::vector<float> weights(static_cast<size_t>(count));
  for (size_t i = 0; i < weights.size(); ++i) {
    const uint32_t bits = random.bits(i), sign = bits & 0x80000000u;
    switch (bits % 8) {
      case 0:
      case 1:
        weights[i] = from_bits(sign | (bits >> 8 & 0x7fffff));  // denormal
        break;
      case 2:
        weights[i] = from_bits(sign);
        break;
      case 3:
        weights[i] = from_bits(sign | (0x7f7fffff - (bits >> 8 & 0xff)));  // the largest
        break;
      default:
        weights[i] = static_cast<float>(0.02 * (2.0 * random.uniform(i) - 1));
    }
  }
  return weights;
}

}  // namespace tessera::test
