// Products of a wide matrix and few rows, sums in registers: the wide one is turned and multiplied a square at a time
// (turned-inl.h). Groups of rows side by side keep the multipliers busy while an addition waits for the one before it.
//
// Included once per SIMD target by files that use foreach_target.h, hence the toggled guard.
#if defined(TESSERA_CPU_THIN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_THIN_INL_H_
#undef TESSERA_CPU_THIN_INL_H_
#else
#define TESSERA_CPU_THIN_INL_H_
#endif

#include <algorithm>
#include <type_traits>

#include "hwy/cache_control.h"
#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/turned-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

/// c[i · thin_step + r · wide_step] = alpha · Σ_k thin[i, k] · wide[r, k] + beta · c, i < thin_rows, r < wide_rows.
/// One of the two steps is 1. Strides are in elements; wide in its storage type.
struct ThinArgs {
  int64_t thin_rows, wide_rows, k;
  const float* thin;
  int64_t thin_stride;
  const void* wide;
  int64_t wide_stride;
  float* c;
  int64_t thin_step, wide_step;
  float alpha, beta;
  bool chain;
};

/// Where the sums of one row of the thin operand belong: lane r to row r of the group.
struct SumsPlace {
  float* c;
  int64_t step, rows;

  HWY_INLINE Vector load() const {
    if (step == 1) return load_some(c, rows);
    HWY_ALIGN float buffer[kLanes] = {};
    for (int64_t r = 0; r < rows; ++r) buffer[r] = c[r * step];
    return hn::Load(kFloats, buffer);
  }
  HWY_INLINE void store(Vector v) const {
    if (step == 1) return store_some(v, c, rows);
    HWY_ALIGN float buffer[kLanes];
    hn::Store(v, kFloats, buffer);
    for (int64_t r = 0; r < rows; ++r) c[r * step] = buffer[r];
  }
};

/// What is added to c behind each block of k: alpha · the block's sums, or with `chain` all that there is.
HWY_INLINE void finish(const ThinArgs& t, int64_t begin, Vector sums, const SumsPlace& place) {
  const float beta = begin == 0 ? t.beta : 1;
  Vector y = t.chain ? sums : hn::Mul(hn::Set(kFloats, t.alpha), sums);
  if (!t.chain && beta != 0) y = fused(hn::Set(kFloats, beta), place.load(), y);
  place.store(y);
}

#if HWY_TARGET == HWY_AVX2
// Sixteen rows, of which a line each stays in the first-level cache while its words are read. Squares of f16 take more
// steps, of which those of more groups have to be under way.
template <int kThin, class T> constexpr int kGroups = kThin == 1 && std::is_same_v<T, Float16> ? 4 : kThin <= 4 ? 2 : 1;
// f32 is read a line of each row at a time, while the line behind it is fetched (of one group, the third behind it). So
// the processor sees the rows as streams and fetches ahead on its own: one row 20 GB/s a core, 14 without. Rows of
// 16-bit elements are too short for that, and with more thin rows than two also those of less than a page.
template <class T> constexpr bool kFollowsRows = sizeof(T) == 4;
template <int kGroup> constexpr int kLinesAhead = kGroup == 1 ? 3 : 1;
template <int kThin, class T> constexpr int kSquares = sizeof(T) == 4 && kThin != 4 ? 4 : kThin == 1 ? 1 : 2;
template <class T> constexpr int kMostTurned = std::is_same_v<T, Float16> ? 1 : 2;
#else
// Sixteen rows, of which a line each stays in the first-level cache while its words are read (with 32 rows AVX-512 is a
// third slower).
template <int kThin, class T> constexpr int kGroups = kThin <= 4 && kLanes < 16 ? 16 / kLanes : 1;
template <class T> constexpr bool kFollowsRows = false;
template <int kGroup> constexpr int kLinesAhead = 1;
template <int kThin, class T> constexpr int kSquares = kLanes / kQuad;  // one row's elements in them fill a vector
template <class T> constexpr int kMostTurned = 2;
#endif
// How many groups are turned before they meet the thin rows, an element of which is then broadcast once for all.
template <int kThin, class T> constexpr int kTurned = kThin == 1 ? std::min(kMostTurned<T>, kGroups<kThin, T>) : 1;
template <int kThin, class T>
constexpr int kElements = kSquares<kThin, T>* kInQuad<T>;  // of each row that are read at a time

/// Rows of the wide operand against the thin ones: some elements of kGroup groups.
template <int kThin, int kGroup, class T> struct Squares {
  static constexpr int kSide = std::min(kGroup, kTurned<kThin, T>);
  static constexpr bool kSpare = kThin != 4;  // there eight sums are in registers beside a square
  const float* thin[kThin];
  Vector sums[kGroup][kThin];

  /// Adds `count` elements from element k of the thin rows on to the sums of kSide groups, which begin group_bytes
  /// apart in rows that are row_bytes apart.
  HWY_INLINE void add(int first, int64_t k, int count, const std::byte* from, int64_t row_bytes, int64_t group_bytes) {
    Turned<T> turned[kSide];
#pragma GCC unroll 2
    for (int s = 0; s < kSide; ++s) turned[s].template load<kSpare>(from + s * group_bytes, row_bytes);
#pragma GCC unroll 4
    for (int word = 0; word < kQuad; ++word) {
      Vector w[kSide][kInWord<T>];
#pragma GCC unroll 2
      for (int s = 0; s < kSide; ++s) turned[s].elements(word, w[s]);
#pragma GCC unroll 2
      for (int e = 0; e < kInWord<T>; ++e) {
        const int at = word * kInWord<T> + e;
        if (at >= count) break;
#pragma GCC unroll 12
        for (int i = 0; i < kThin; ++i) {
          const Vector x = hn::Set(kFloats, thin[i][k + at]);
          for (int s = 0; s < kSide; ++s) sums[first + s][i] = fused(x, w[s][e], sums[first + s][i]);
        }
      }
    }
  }
};

constexpr int64_t kLine = 64, kPage = 4096;

/// `rows` rows of the wide operand, at most those of kGroup groups, against kThin rows of the thin one. kWhole: all
/// rows exist. next: the rows behind them.
template <int kThin, int kGroup, bool kWhole, class T>
HWY_INLINE void meet(const ThinArgs& t, const T* wide, int64_t rows, float* c, const T* next) {
  using Group = Squares<kThin, kGroup, T>;
  constexpr int64_t kSize = static_cast<int64_t>(sizeof(T)), kCopyBytes = kElements<kThin, T> * kSize;
  constexpr int64_t kSideRows = Group::kSide * kLanes;
  const auto* ahead = reinterpret_cast<const std::byte*>(next);
  const int64_t row_bytes = t.wide_stride * kSize;
  Group q;
  // Rows that do not exist repeat the last one, and are not stored.
  for (int i = 0; i < kThin; ++i) q.thin[i] = t.thin + std::min<int64_t>(i, t.thin_rows - 1) * t.thin_stride;
  const auto place = [&](int g, int i) {
    return SumsPlace{c + i * t.thin_step + g * kLanes * t.wide_step, t.wide_step, std::min<int64_t>(kLanes, rows)};
  };
  const bool goes_on = t.chain && t.beta != 0,
             follows = kFollowsRows<T> && (kThin <= 2 || (kThin != 4 && row_bytes >= kPage));
  const int64_t length = t.chain ? t.k : kBlockK;
  for (int64_t begin = 0; begin < t.k; begin += length) {
    const int64_t end = std::min(t.k, begin + length);
    for (int g = 0; g < kGroup; ++g)
      for (int i = 0; i < kThin; ++i)
        q.sums[g][i] = goes_on && i < t.thin_rows ? place(g, i).load() : hn::Zero(kFloats);
    int64_t k = begin;
    for (; kWhole && k + kElements<kThin, T> <= end; k += kElements<kThin, T>) {
      const auto* from = reinterpret_cast<const std::byte*>(wide + k);
      const int64_t fetched = k + kLinesAhead<kGroup> * kElements<kThin, T>;
      const auto* line = reinterpret_cast<const std::byte*>(fetched < t.k ? wide + fetched : next + (fetched - t.k));
#pragma GCC unroll 4
      for (int square = 0; square < kSquares<kThin, T>; ++square) {
#pragma GCC unroll 4
        for (int first = 0; first < kGroup; first += Group::kSide) {
          const std::byte* at = from + square * kQuadBytes + first * kLanes * row_bytes;
          if (kThin == 1) at = forgotten(at);
          if (!follows) {
            // As many bytes as are used here, a few lines at a time: the processor can wait for some only.
            for (int64_t b = 0; b < kSideRows * kQuadBytes; b += kLine) hwy::Prefetch(ahead + b);
            ahead += kSideRows * kQuadBytes;
          } else if (square == 0) {
#pragma GCC unroll 16
            for (int64_t r = 0; r < kSideRows; ++r, line += row_bytes) hwy::Prefetch(line);
          }
          q.add(first, k + square * kInQuad<T>, kInQuad<T>, at, row_bytes, kLanes * row_bytes);
        }
      }
    }
    for (; k < end; k += kElements<kThin, T>) {
      // Nothing is added for elements that do not exist: zero times infinity would be no zero.
      const int64_t elements = std::min<int64_t>(kElements<kThin, T>, end - k);
      HWY_ALIGN std::byte copy[kGroup * kLanes * kCopyBytes] = {};
      for (int64_t r = 0; r < std::min<int64_t>(rows, kGroup * kLanes); ++r)
        std::memcpy(copy + r * kCopyBytes, wide + r * t.wide_stride + k, static_cast<size_t>(elements * kSize));
      for (int64_t at = 0; at < elements; at += kInQuad<T>)
        for (int first = 0; first < kGroup; first += Group::kSide)
          q.add(first, k + at, static_cast<int>(std::min<int64_t>(kInQuad<T>, elements - at)),
                copy + first * kLanes * kCopyBytes + at * kSize, kCopyBytes, kLanes * kCopyBytes);
    }
    for (int g = 0; g < kGroup; ++g)
      for (int i = 0; i < kThin; ++i) {
        if (i >= t.thin_rows) break;
        finish(t, begin, q.sums[g][i], place(g, i));
      }
  }
}

template <int kThin, class T> void groups(const ThinArgs& t) {
  constexpr int kGroup = kGroups<kThin, T>;
  const T* wide = static_cast<const T*>(t.wide);
  float* c = t.c;
  for (int64_t left = t.wide_rows; left > 0;) {
    const int64_t rows = left >= kGroup * kLanes ? kGroup * kLanes : std::min<int64_t>(kLanes, left);
    const T* next = wide + rows * t.wide_stride;
    if (rows == kGroup * kLanes)
      meet<kThin, kGroup, true>(t, wide, rows, c, next);
    else if (rows == kLanes)
      meet<kThin, 1, true>(t, wide, rows, c, next);
    else
      meet<kThin, 1, false>(t, wide, rows, c, wide);
    wide = next;
    c += rows * t.wide_step;
    left -= rows;
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
