#pragma once
// Exact arithmetic of shared-seed votes. Same bits on every backend, for any number of threads and any order of votes:
// sums are integers, and each weight is rounded twice a group (integer to float, then the fma), to nearest even,
// with denormals.

#include <span>
#include <string>

#include "core/direction.h"
#include "kernels/context.h"

namespace tessera {

/// One vote: the sum takes value · z of (seed, round, machine, sample).
struct VoteTerm {
  uint32_t machine;
  uint16_t sample;
  int32_t value;  // decoded and clipped; |value| <= 2^23
};

/// Votes that enter one integer sum. For p in the pool
///   independent:  A[p] = Σ_v value_v · z(seed, round, machine_v, sample_v)[p]
///   Hadamard:     A[p] = D[p] · transformed[p mod K],  D = signs (its `lanes` is 0), K = transformed.size()
/// Σ_v |value_v| stays below 2^31: 8192 votes of 245,760, or 255 of 2^23.
struct VoteGroup {
  uint64_t seed = 0;
  uint32_t round = 0;
  std::span<const VoteTerm> votes{};       // independent; empty with Hadamard
  Direction signs{};                       // Hadamard
  std::span<const int32_t> transformed{};  // Hadamard: H q, from hadamard_transform; empty otherwise
  float alpha = 0, mul = 1;
};

/// out[i] = values[i] + scale · z[first + i], rounded once.
/// @param values  [n] f32, bf16 or f16 (f64 too in the reference backend), widened exactly
/// @param out     [n] f32 (f64 for f64 values); may not alias values: evaluation never writes weights
/// @param first   number of values[0] in the pool; any, not only multiples of 128
void perturb(const Context&, ConstView values, int64_t first, const Direction& z, float scale, TensorView out);

/// For each group in order, for each weight p = first + i:
///   w = mul · w (only when mul != 1, rounded by itself),   w = fma(alpha, float(A[p]), w)
/// values [n] f32. Many rounds may be given at once: a block of weights stays in the cache while the groups go by.
void vote_update(const Context&, TensorView values, int64_t first, std::span<const VoteGroup> groups);

/// sum[i] = A[first + i]: the gradient's integers, for optimizers with state. sum [n] i32.
void vote_sum(const Context&, int64_t first, const VoteGroup& group, TensorView sum);

/// y[i] = fma(factor, float(x[i]), y[i]): votes' sums become gradients. x [n] i32, y [n] f32.
void add_integers(const Context&, ConstView x, float factor, TensorView y);

/// q <- H q in place, H[i][k] = (−1)^popcount(i AND k); size a power of two. Host integers.
void hadamard_transform(std::span<int32_t> q);

/// 128 order-free bits of the exact state:
///   x = finalise((p+1)·0x9E3779B97F4A7C15 XOR bits(w[p])),  p = first + i,
///   digest = ( Σ x, Σ finalise(x XOR ~0) ) mod 2^64.
/// Digests of parts add up. Detects divergence, not malice. The op writes the two numbers into [2] i64;
/// state_digest brings them to the host.
struct StateDigest {
  uint64_t sum = 0, check = 0;
  constexpr StateDigest& operator+=(const StateDigest& other) {
    sum += other.sum;
    check += other.check;
    return *this;
  }
  friend bool operator==(const StateDigest&, const StateDigest&) = default;
  std::string text() const;  // 32 hex digits
};
StateDigest state_digest(const Context&, ConstView values, int64_t first);

/// Whether this thread rounds to nearest and keeps denormals (MXCSR without FTZ and DAZ), as the arithmetic above must.
bool has_exact_rounding();

}  // namespace tessera
