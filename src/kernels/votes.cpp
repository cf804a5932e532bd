#include "kernels/votes.h"

#include <array>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdlib>

#include "core/device/memory.h"
#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {
namespace {

constexpr int64_t kPoolLimit = int64_t{1} << 55;  // 2^48 blocks of 128
constexpr int64_t kSumLimit = int64_t{1} << 31;   // of |A|

void check_range(const char* op, int64_t first, int64_t count) {
  TS_CHECK(first >= 0 && count <= kPoolLimit - first, "{}: weights {} .. {} + {}, expected 0 .. 2^55", op, first, first,
           count);
}

void check_direction(const char* op, const Direction& z) {
  TS_CHECK(z.lanes == 0 || (std::has_single_bit(z.lanes) && z.lane < z.lanes), "{}: Hadamard lane {} of {}", op, z.lane,
           z.lanes);
}

/// The sum of magnitudes bounds |A|; for Hadamard lanes A is one of the integers.
void check_group(const char* op, const VoteGroup& group) {
  const bool is_hadamard = !group.transformed.empty();
  TS_CHECK(!is_hadamard || group.votes.empty(), "{}: a group of {} votes and {} transformed integers", op,
           group.votes.size(), group.transformed.size());
  TS_CHECK(!is_hadamard || (std::has_single_bit(group.transformed.size()) && group.signs.lanes == 0),
           "{}: {} transformed integers, expected a power of two; signs of {} lanes, expected 0", op,
           group.transformed.size(), group.signs.lanes);
  int64_t bound = 0;
  for (const VoteTerm& vote : group.votes) bound += std::abs(int64_t{vote.value});
  TS_CHECK(bound < kSumLimit, "{}: votes add up to {}, beyond 31 bits", op, bound);
  TS_CHECK(std::isfinite(group.alpha) && std::isfinite(group.mul), "{}: alpha {} and mul {}", op, group.alpha,
           group.mul);
}

/// Replicas agree to the bit only under one rounding. A library built with -ffast-math switches denormals off when it
/// is loaded: that is told here, and not found as a digest that differs a thousand rounds later.
void check_rounding(const char* op) {
  TS_CHECK(has_exact_rounding(), "{}: this thread flushes denormals to zero or does not round to nearest", op);
}

}  // namespace

void perturb(const Context& ctx, ConstView values, int64_t first, const Direction& z, float scale, TensorView out) {
  const Arguments check(ctx, "perturb", out.dtype);
  const int64_t count = values.shape.count();
  check_range("perturb", first, count);
  check_direction("perturb", z);
  TS_CHECK(values.is_contiguous() && out.is_contiguous(), "perturb: strided views");
  check.weight("values", values.reshape({count}), {count});
  check.vector("out", out.reshape({out.shape.count()}), count);
  const auto* from = static_cast<const std::byte*>(values.data);
  const auto* to = static_cast<const std::byte*>(out.data);
  TS_CHECK(from + values.bytes() <= to || to + out.bytes() <= from || count == 0, "perturb: out aliases values");
  check_rounding("perturb");
  ctx.kernels.perturb(ctx, values, first, z, scale, out);
}

void vote_update(const Context& ctx, TensorView values, int64_t first, std::span<const VoteGroup> groups) {
  const Arguments check(ctx, "vote_update", DType::f32);
  check.vector("values", values, values.shape.count());
  check_range("vote_update", first, values.shape.count());
  for (const VoteGroup& group : groups) check_group("vote_update", group);
  check_rounding("vote_update");
  ctx.kernels.vote_update(ctx, values, first, groups);
}

void vote_sum(const Context& ctx, int64_t first, const VoteGroup& group, TensorView sum) {
  const Arguments check(ctx, "vote_sum", DType::f32);
  check.integers("sum", sum, DType::i32, sum.shape.count());
  check_range("vote_sum", first, sum.shape.count());
  check_group("vote_sum", group);
  ctx.kernels.vote_sum(ctx, first, group, sum);
}

void add_integers(const Context& ctx, ConstView x, float factor, TensorView y) {
  const Arguments check(ctx, "add_integers", DType::f32);
  check.vector("y", y, y.shape.count());
  check.integers("x", x, DType::i32, y.shape.count());
  ctx.kernels.add_integers(ctx, x, factor, y);
}

StateDigest state_digest(const Context& ctx, ConstView values, int64_t first) {
  const Arguments check(ctx, "state_digest", DType::f32);
  check.vector("values", values, values.shape.count());
  check_range("state_digest", first, values.shape.count());
  if (is_counting(ctx)) return {};
  const Tensor digest({2}, DType::i64, ctx.device);
  ctx.kernels.state_digest(ctx, values, first, digest);
  const Tensor host = download(digest);
  const auto parts = host.as<int64_t>();
  return {.sum = static_cast<uint64_t>(parts[0]), .check = static_cast<uint64_t>(parts[1])};
}

std::string StateDigest::text() const { return fmt::format("{:016x}{:016x}", sum, check); }

namespace {

/// The passes of pairs that are 1, 2 and 4 apart: an eighth of a vector each, too short for a loop of its own.
void transform_eight(int32_t* q) {
  std::array<int32_t, 8> x{};
  for (size_t i = 0; i < 8; ++i) x[i] = i % 2 == 0 ? q[i] + q[i + 1] : q[i - 1] - q[i];
  std::array<int32_t, 8> y{};
  for (size_t i = 0; i < 8; ++i) y[i] = i % 4 < 2 ? x[i] + x[i + 2] : x[i - 2] - x[i];
  for (size_t i = 0; i < 8; ++i) q[i] = i < 4 ? y[i] + y[i + 4] : y[i - 4] - y[i];
}

/// a[i], b[i] <- a[i] + b[i], a[i] - b[i] for all pairs that are `half` apart, within blocks of 2 half.
void butterflies(std::span<int32_t> q, size_t half) {
  for (size_t start = 0; start < q.size(); start += 2 * half) {
    int32_t *a = q.data() + start, *b = a + half;
    for (size_t i = 0; i < half; ++i) {
      const int32_t sum = a[i] + b[i], difference = a[i] - b[i];
      a[i] = sum;
      b[i] = difference;
    }
  }
}

}  // namespace

// In place, by butterflies: log2(K) passes in place of K² products. Integers, so that their order is nobody's concern;
// a sum of magnitudes below 2^31 bounds every intermediate one.
void hadamard_transform(std::span<int32_t> q) {
  TS_CHECK(std::has_single_bit(q.size()), "hadamard_transform: {} integers, expected a power of two", q.size());
  int64_t bound = 0;
  for (const int32_t value : q) bound += std::abs(int64_t{value});
  TS_CHECK(bound < kSumLimit, "hadamard_transform: magnitudes add up to {}, beyond 31 bits", bound);
  const size_t in_eights = q.size() / 8 * 8;  // all, or none
  for (size_t start = 0; start < in_eights; start += 8) transform_eight(q.data() + start);
  for (size_t half = in_eights > 0 ? 8 : 1; half < q.size(); half *= 2) butterflies(q, half);
}

bool has_exact_rounding() {
  // Volatile: at run time. Asked of the arithmetic itself; std::fegetround looks at the x87 unit on x86.
  volatile float smallest_normal = FLT_MIN, denormal = FLT_TRUE_MIN, one = 1;
  const bool keeps_denormals = smallest_normal / 2 != 0 && denormal * 0x1p100f != 0;
  const bool rounds_to_nearest = one + 0x1p-25f == 1 && one - 0x1p-26f == 1;
  return keeps_denormals && rounds_to_nearest;
}

}  // namespace tessera
