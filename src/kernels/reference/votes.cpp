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
        to[i] = static_cast<decltype(t)>(widen(from[i])) + scale * static_cast<decltype(t)>(sign_at(z, first + i));
    });
  });
}

void vote_update(const Context&, std::span<float> values, int64_t first, std::span<const VoteGroup> groups) {
  for (const VoteGroup& group : groups)
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = apply_votes(values[i], group.mul, group.alpha, sum_at(group, first + i));
}

void vote_sum(const Context&, int64_t first, const VoteGroup& group, std::span<int32_t> sum) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = sum_at(group, first + i);
}

StateDigest state_digest(const Context&, std::span<const float> values, int64_t first) {
  StateDigest digest;
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t term = digest_term(values[i], first + i);
    digest += {.sum = term, .check = finalise64(~term)};
  }
  return digest;
}

}  // namespace tessera::reference
