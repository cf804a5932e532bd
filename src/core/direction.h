#pragma once
// Shared-seed directions: z in {-1, +1}^P as a pure function of a few integers. Every function here is constexpr, so
// that host code, tests at compile time and device code (nvcc --expt-relaxed-constexpr) share one definition.

#include "core/random.h"

namespace tessera {

/// Machine ids from here on are not machines: streams for other uses.
constexpr uint32_t kReservedMachines = 0xffffff00u;
constexpr uint32_t kRoundingStream = 0xffffff02u;   // draws of stochastic rounding
constexpr uint32_t kSharedStream = 0xffffff03u;     // directions that all machines use
constexpr uint32_t kSeedPoolStream = 0xffffff04u;   // the fixed pool of K directions: round 0, sample k
constexpr uint32_t kQuadraticStream = 0xffffff05u;  // the minimum of a simulation's quadratic: round 0
constexpr uint32_t kHadamardStream = 0xffffffffu;   // the signs D of a round: sample = group

/// Which z. Independent directions: (seed, round, machine, sample).
/// Hadamard lane k of K = `lanes` (a power of two, 0: none):
/// z_k[p] = D[p] · (−1)^popcount(k AND (p mod K)), where D is the direction of the other fields.
struct Direction {
  uint64_t seed = 0;
  uint32_t round = 0, machine = 0;
  uint16_t sample = 0;
  uint32_t lane = 0, lanes = 0;
  friend bool operator==(const Direction&, const Direction&) = default;
};

/// The Philox counter of 128 weights, block = p / 128 < 2^48:
///   ( block mod 2^32, (block >> 32) << 16 | sample, machine, round ).
constexpr std::array<uint32_t, 4> direction_counter(const Direction& z, uint64_t block) {
  return {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32) << 16 | z.sample, z.machine, z.round};
}

/// Bit i of the result is set when lane k of the Walsh matrix is negative at p = 32·word + i.
constexpr uint32_t walsh_word(uint32_t k, uint32_t lanes, uint64_t word) {
  constexpr uint32_t kPatterns[5] = {0xAAAAAAAAu, 0xCCCCCCCCu, 0xF0F0F0F0u, 0xFF00FF00u, 0xFFFF0000u};
  uint32_t bits = 0;
  for (int j = 0; j < 5; ++j)
    if (k >> j & 1) bits ^= kPatterns[j];
  const auto high = static_cast<uint32_t>(word * 32) & (lanes - 1) & k & ~31u;
  uint32_t parity = high;
  for (int shift = 16; shift > 0; shift /= 2) parity ^= parity >> shift;
  return parity & 1 ? ~bits : bits;
}

/// The signs of 128 weights, p = 128·block ..: weight p is −1 where bit (p mod 32) of word (p mod 128) / 32 is set.
constexpr std::array<uint32_t, 4> sign_block(const Direction& z, uint64_t block) {
  auto words =
      philox4x32(direction_counter(z, block), {static_cast<uint32_t>(z.seed), static_cast<uint32_t>(z.seed >> 32)});
  if (z.lanes)
    for (uint64_t w = 0; w < 4; ++w) words[w] ^= walsh_word(z.lane, z.lanes, 4 * block + w);
  return words;
}

/// z[p] as +1 or −1: the definition, one weight at a time.
constexpr int sign_at(const Direction& z, uint64_t p) {
  return sign_block(z, p / 128)[p % 128 / 32] >> (p % 32) & 1 ? -1 : 1;
}

}  // namespace tessera
