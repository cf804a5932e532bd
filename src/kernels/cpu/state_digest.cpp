// The digest of weights: integer sums, which any order of vectors and threads gives alike.

#include "kernels/cpu/targets.h"
#include "kernels/votes.h"
#include "kernels/votes_exact.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/state_digest.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

using Wide = hn::Repartition<uint64_t, Floats>;
using WideVec = hn::Vec<Wide>;
constexpr Wide kWide;

// A term is a chain of four products of 15 cycles each. Eight vectors abreast hide them: 1.4 G weights/s with AVX-512
// and 0.8 with AVX2, against 0.5 and 0.4 with one. Without either, scalar products are as fast.
constexpr int64_t kAbreast = 8;

/// finalise64 (core/random.h) step by step over all vectors: the steps of one vector wait for each other, those of
/// different vectors do not.
HWY_INLINE void finalise_lanes(WideVec (&z)[kAbreast]) {
  const auto first = hn::Set(kWide, uint64_t{0xBF58476D1CE4E5B9u}),
             second = hn::Set(kWide, uint64_t{0x94D049BB133111EBu});
  for (auto& v : z) v = hn::Xor(v, hn::ShiftRight<30>(v));
  for (auto& v : z) v = hn::Mul(v, first);
  for (auto& v : z) v = hn::Xor(v, hn::ShiftRight<27>(v));
  for (auto& v : z) v = hn::Mul(v, second);
  for (auto& v : z) v = hn::Xor(v, hn::ShiftRight<31>(v));
}

/// Adds digest_term of votes_exact.h of each weight.
void digest_range(const float* weights, uint64_t first, int64_t n, StateDigest* digest) {
  int64_t i = 0;
#if HWY_TARGET <= HWY_AVX2
  const hn::Rebind<uint32_t, Wide> narrow;
  constexpr int64_t kLanes = hn::MaxLanes(kWide);
  // (p + 1) · gamma of digest_term for the first vector; the following ones are reached by adding, without a product.
  auto place = hn::Mul(hn::Add(hn::Set(kWide, first + 1), hn::Iota(kWide, 0)), hn::Set(kWide, kGamma64));
  const auto step = hn::Set(kWide, kLanes * kGamma64), ones = hn::Set(kWide, ~uint64_t{0});
  auto sum = hn::Zero(kWide), check = sum;
  for (; i + kAbreast * kLanes <= n; i += kAbreast * kLanes) {
    WideVec z[kAbreast];
    for (int64_t j = 0; j < kAbreast; ++j, place = hn::Add(place, step)) {
      const auto* bits = reinterpret_cast<const uint32_t*>(weights) + i + j * kLanes;
      z[j] = hn::Xor(place, hn::PromoteTo(kWide, hn::LoadU(narrow, bits)));
    }
    finalise_lanes(z);
    for (const auto& term : z) sum = hn::Add(sum, term);
    for (auto& term : z) term = hn::Xor(term, ones);
    finalise_lanes(z);
    for (const auto& term : z) check = hn::Add(check, term);
  }
  // Sums modulo 2^64 may be joined in any order.
  uint64_t sums[kLanes], checks[kLanes];
  hn::StoreU(sum, kWide, sums);
  hn::StoreU(check, kWide, checks);
  for (int64_t j = 0; j < kLanes; ++j) *digest += {.sum = sums[j], .check = checks[j]};
#endif
  // The remainder, and everything where there are no vectors of 64-bit products: the definition, one weight at a time.
  for (; i < n; ++i) {
    const uint64_t term = digest_term(weights[i], first + static_cast<uint64_t>(i));
    *digest += {.sum = term, .check = finalise64(~term)};
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <atomic>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(digest_range);

}  // namespace

void state_digest(const Context& ctx, ConstView values, int64_t first, TensorView digest) {
  std::atomic<uint64_t> sum = 0, check = 0;  // integers: any order of the threads gives the same
  // Threads sum parts of their own and meet in two atomic additions each.
  parallel_for(ctx, values.shape.count(), 1, [&](int64_t begin, int64_t end) {
    StateDigest part;
    HWY_DYNAMIC_DISPATCH(digest_range)
    (values.row<float>(0) + begin, static_cast<uint64_t>(first + begin), end - begin, &part);
    sum += part.sum;
    check += part.check;
  });
  digest.as<int64_t>()[0] = static_cast<int64_t>(sum.load());
  digest.as<int64_t>()[1] = static_cast<int64_t>(check.load());
}

}  // namespace tessera::cpu
#endif
