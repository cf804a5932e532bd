#pragma once
// Counter-based random numbers: a draw is a function of (seed, stream, index), never of call order or thread.

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "core/rules.h"

namespace tessera {

/// SplitMix64's increment: 2^64 over the golden ratio, made odd.
constexpr uint64_t kGamma64 = 0x9E3779B97F4A7C15ull;

/// SplitMix64's finaliser: a bijection of 64 bits.
constexpr uint64_t finalise64(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// SplitMix64's finaliser over z + GAMMA: a bijective 64-bit hash.
constexpr uint64_t mix64(uint64_t z) { return finalise64(z + kGamma64); }

/// h = 0; for x in parts: h = mix64(h ^ x).
constexpr uint64_t hash_key(std::initializer_list<uint64_t> parts) {
  uint64_t h = 0;
  for (uint64_t x : parts) h = mix64(h ^ x);
  return h;
}

/// The counter-th draw in [0, n): the high 64 bits of mix64(key + counter*GAMMA) * n.
constexpr uint64_t draw_below(uint64_t key, uint64_t counter, uint64_t n) {
  const uint64_t bits = mix64(key + counter * kGamma64);
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * n) >> 64);
}

/// `q` distinct numbers of [0, n): the first q steps of a Fisher-Yates shuffle driven by draw_below(key, step, n-step).
std::vector<int32_t> draw_distinct(uint64_t key, int64_t n, int64_t q);

/// Philox4x32 with 10 rounds (Salmon et al. 2011, SC'11): four 32-bit words from a 128-bit counter and a 64-bit key.
/// Bit-equal to cuRAND's and to Random123's.
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// Uniform in [0, 1) with 24 bits.
constexpr float to_unit(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }

/// A stream of draws addressed by index: key = seed, counter = (index / 4, stream).
class RandomStream {
 public:
  RandomStream(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}
  uint32_t bits(uint64_t index) const;
  float uniform(uint64_t index) const { return to_unit(bits(index)); }  // [0, 1)
  /// Standard normal, by Box and Muller: sqrt(−2 log(1 − u)) · cos(2 π v) of the uniforms at 2 · index and behind it.
  double normal(uint64_t index, Rules = kNewestRules) const;

 private:
  uint64_t seed_, stream_;
};

/// A keyed bijection of [0, n): a balanced Feistel network of four rounds, walked until it lands inside [0, n).
/// @throws InternalError if index is not in [0, n)
uint64_t permute_index(uint64_t key, uint64_t n, uint64_t index);

/// 64-bit FNV-1a.
uint64_t fnv1a(const void* data, size_t bytes, uint64_t h = 0xcbf29ce484222325ull);

}  // namespace tessera
