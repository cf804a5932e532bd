#pragma once
// Draws of a simulation: hashes of what they are for, so that no order of events shows in them.

#include "core/random.h"

namespace tessera {

/// What is drawn; part of the hash.
enum class SimDraw : uint64_t { up, down, comes, number, hostile, churn, kind_of_end, time_of_end, noise };

/// The key of draws of a node: (simulate.seed, node, purpose, which of them).
constexpr uint64_t sim_key(uint64_t seed, uint64_t node, SimDraw purpose, uint64_t which = 0) {
  return hash_key({seed, node, static_cast<uint64_t>(purpose), which});
}

/// Uniform in [0, 1) with 53 bits.
constexpr double sim_unit(uint64_t key, uint64_t counter = 0) {
  return static_cast<double>(draw_below(key, counter, uint64_t{1} << 53)) * 0x1p-53;
}

}  // namespace tessera
