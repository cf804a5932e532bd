// Votes and digests a weight at a time, every sign by a Philox call of its own: the definition of core/direction.h and
// kernels/votes_exact.h with loops around it. Kernels must give these bits, not numbers near to them.

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"
#include "kernels/votes_exact.h"

namespace tessera::reference {
namespace {

/// A[p]
int32_t sum_at(const VoteGroup& group, uint64_t p) {
  if (!group.transformed.empty()) return sign_at(group.signs, p) * group.transformed[p % group.transformed.size()];
  int32_t sum = 0;
  for (const VoteTerm& vote : group.votes)
    sum += vote.value *
           sign_at({.seed = group.seed, .round = group.round, .machine = vote.machine, .sample = vote.sample}, p);
  return sum;
}

}  // namespace

void perturb(const Context&, ConstView values, int64_t first, const Direction& z, float scale, TensorView out) {
  with_storage_type(values.dtype, [&](auto w) {
    with_compute_type(out.dtype, [&](auto t) {
      const auto* from = static_cast<const decltype(w)*>(values.data);
      auto* to = static_cast<decltype(t)*>(out.mutable_data());
      for (int64_t i = 0; i < values.shape.count(); ++i)
        // A sign times the scale is exact, so that the sum is the one rounding.
        to[i] = static_cast<decltype(t)>(widen(from[i])) + scale * static_cast<decltype(t)>(sign_at(z, first + i));
    });
  });
}

void vote_update(const Context&, TensorView weights, int64_t first, std::span<const VoteGroup> groups) {
  const auto values = weights.as<float>();
  for (const VoteGroup& group : groups)
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = apply_votes(values[i], group.mul, group.alpha, sum_at(group, first + i));
}

void vote_sum(const Context&, int64_t first, const VoteGroup& group, TensorView sums) {
  const auto sum = sums.as<int32_t>();
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = sum_at(group, first + i);
}

void add_integers(const Context&, ConstView x, float factor, TensorView y) {
  const auto integers = x.as<int32_t>();
  const auto sums = y.as<float>();
  // The integer is rounded to f32 first and then fused: two roundings, as in apply_votes.
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = std::fma(factor, static_cast<float>(integers[i]), sums[i]);
}

void state_digest(const Context&, ConstView weights, int64_t first, TensorView out) {
  const auto values = weights.as<float>();
  StateDigest digest;
  // A sum of terms, each a hash of a weight and its place, so that parts of a pool may be digested in any order.
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t term = digest_term(values[i], first + i);
    digest += {.sum = term, .check = finalise64(~term)};
  }
  out.as<int64_t>()[0] = static_cast<int64_t>(digest.sum);
  out.as<int64_t>()[1] = static_cast<int64_t>(digest.check);
}

}  // namespace tessera::reference
