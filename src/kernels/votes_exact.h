#pragma once
// What votes.h does to one weight. Constexpr, so that every backend, device code included (nvcc
// --expt-relaxed-constexpr -fmad=false), runs this definition or is compared with it bit by bit.

#include <bit>
#include <cmath>

#include "core/random.h"

namespace tessera {

/// The weight after one group: two roundings, and one more before them where the weight decays.
constexpr float apply_votes(float weight, float mul, float alpha, int32_t sum) {
  if (mul != 1) weight = mul * weight;
  return std::fma(alpha, static_cast<float>(sum), weight);
}

/// The term of weight p in StateDigest::sum; StateDigest::check adds finalise64(~term).
constexpr uint64_t digest_term(float weight, uint64_t p) {
  return finalise64((p + 1) * kGamma64 ^ std::bit_cast<uint32_t>(weight));
}

}  // namespace tessera
