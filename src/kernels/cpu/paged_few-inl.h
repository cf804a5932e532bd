// Few queries with a block of entries, as the tail of one sequence has them: keys are turned in registers on their way
// to the sums, each of which still runs over the elements of its head in order.
//
// Included once per SIMD target, behind paged_block-inl.h.
#if defined(TESSERA_KERNELS_CPU_PAGED_FEW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_PAGED_FEW_INL_H_
#undef TESSERA_KERNELS_CPU_PAGED_FEW_INL_H_
#else
#define TESSERA_KERNELS_CPU_PAGED_FEW_INL_H_
#endif

#include <algorithm>

#include "kernels/cpu/paged_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

/// to[n, j] = q[n] · k[j] for kVectors vectors of keys, of which `count` exist (kWhole: all).
template <int kQueries, int kVectors, bool kWhole>
HWY_INLINE void score_keys(const float* q, int64_t dim, const float* k, int64_t count, float* to) {
  Vector sums[kQueries][kVectors];
  for (auto& of_query : sums)
    for (Vector& sum : of_query) sum = hn::Zero(kFloats);
  // Elements [c, c + elements) of the head.
  const auto step = [&](int64_t c, int64_t elements) HWY_ATTR {
#pragma GCC unroll 4
    for (int g = 0; g < kVectors; ++g) {
      Vector v[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        const int64_t j = g * kLanes + r;
        v[r] = kWhole || j < count ? load_some(k + j * dim + c, elements) : hn::Zero(kFloats);
      }
      turn(v);
      for (int i = 0; i < elements; ++i)
#pragma GCC unroll 4
        for (int n = 0; n < kQueries; ++n) sums[n][g] = fused(hn::Set(kFloats, q[n * dim + c + i]), v[i], sums[n][g]);
    }
  };
  int64_t c = 0;
  for (; c + kLanes <= dim; c += kLanes) step(c, kLanes);
  if (c < dim) step(c, dim - c);
  for (int n = 0; n < kQueries; ++n)
    for (int g = 0; g < kVectors; ++g)
      if (kWhole || g * kLanes < count) store_some(sums[n][g], to + n * kScoreStride + g * kLanes, count - g * kLanes);
}

/// A sum waits for its last step: of one query or two more keys are taken at a time.
template <int kQueries>
static HWY_NOINLINE void score_piece(const float* q, int64_t dim, const float* k, int64_t count, float* to) {
  constexpr int kVectors = kQueries > 2 ? 2 : 4, kKeys = kVectors * kLanes;
  int64_t j = 0;
  for (; j + kKeys <= count; j += kKeys) {
    prefetch_rows(k + (j + kKeys) * dim, dim, std::min<int64_t>(kKeys, count - j - kKeys), dim);
    score_keys<kQueries, kVectors, true>(q, dim, k + j * dim, kKeys, to + j);
  }
  for (; j < count; j += kLanes)
    score_keys<kQueries, 1, false>(q, dim, k + j * dim, std::min<int64_t>(kLanes, count - j), to + j);
}

/// Rows of the next piece that are fetched while one is scored.
constexpr int64_t kNear = 16;

/// Scores of up to kFewQueries queries with entries `rows` of a block.
HWY_INLINE void score_few(const float* q, int64_t queries, int64_t dim, const EntryBlock& b, Rows rows, float* scores) {
  static_assert(kFewQueries == 4);
  for (const RowPiece& k : b.keys) {
    const int64_t begin = std::max(rows.begin, k.first), end = std::min(rows.end, k.first + k.count);
    if (begin >= end) continue;
    const float* keys = k.data + (begin - k.first) * dim;
    // Many rows are read side by side, and where the next page lies the CPU cannot guess.
    if (const RowPiece* next = &k + 1; next != b.keys.end())
      prefetch_rows(next->data, dim, std::min(kNear, next->count), dim);
    constexpr decltype(&score_piece<1>) kOf[] = {score_piece<1>, score_piece<2>, score_piece<3>, score_piece<4>};
    kOf[queries - 1](q, dim, keys, end - begin, scores + begin);
  }
}

/// product() in tiles of kRows rows, which are all that there are.
template <int kRows> static HWY_NOINLINE void product_of_rows(const TileArgs& t) {
  int64_t j = 0;
  for (; j + 3 * kLanes <= t.n; j += 3 * kLanes) tile<kRows, 3, false>(t, t.a, 0, j, kLanes);
  if (j + 2 * kLanes <= t.n) tile<kRows, 2, false>(t, t.a, 0, j, kLanes), j += 2 * kLanes;
  for (; j < t.n; j += kLanes) tile<kRows, 1, true>(t, t.a, 0, j, std::min<int64_t>(kLanes, t.n - j));
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
