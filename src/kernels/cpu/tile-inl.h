// The register tile that the CPU's matrix products share: gemms and attention.
//
//   blocks:  c[i, j] = alpha · Σ_k a[i·row_step + k·k_step] · b[k·ldb + j] + beta · c[i, j]
//   chain:   the same sum begins with c[i, j] (0 where beta is 0) in place of 0; alpha is 1
//
// A vector lies along j; an element of a is broadcast. kTileRows × kTileCols vectors of c stay in registers while k
// runs, so that 8 + 3 loads feed 24 fused multiply-adds. An element's sum runs over k in order, whatever tile it falls
// in: its bits depend neither on m nor on n, nor on how the caller splits them.
//
// Included once per SIMD target by files that use foreach_target.h, hence the toggled guard.
#if defined(TESSERA_KERNELS_CPU_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_TILE_INL_H_
#undef TESSERA_KERNELS_CPU_TILE_INL_H_
#else
#define TESSERA_KERNELS_CPU_TILE_INL_H_
#endif

#include <cstdint>
#include <cstring>

#include "core/tensor.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

using Vector = FloatVec;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(kFloats));

// 24 sums, 3 rows of b and a broadcast fit 32 registers; 12 sums fit 16.
#if HWY_TARGET <= HWY_AVX3 || HWY_TARGET == HWY_NEON
constexpr int kTileRows = 8, kTileCols = 3;
#else
constexpr int kTileRows = 4, kTileCols = 3;
#endif

constexpr int kLineVectors = kLanes >= 16 ? 1 : 16 / kLanes;  // in a cache line
// With less to sum, fetching c ahead costs more than it saves.
constexpr int64_t kWorthFetching = 128;

/// The elements at even (odd) places of `low`, then of `high`.
HWY_INLINE Vector evens(Vector low, [[maybe_unused]] Vector high) {
#if HWY_TARGET == HWY_SCALAR
  return low;
#else
  return hn::ConcatEven(kFloats, high, low);
#endif
}
HWY_INLINE Vector odds([[maybe_unused]] Vector low, Vector high) {
#if HWY_TARGET == HWY_SCALAR
  return high;
#else
  return hn::ConcatOdd(kFloats, high, low);
#endif
}

/// kLanes elements, widened to f32.
HWY_INLINE Vector load(const float* from) { return hn::LoadU(kFloats, from); }
HWY_INLINE Vector load(const BFloat16* from) {
  const hn::Rebind<hwy::bfloat16_t, Floats> narrow;
  return hn::PromoteTo(kFloats, hn::LoadU(narrow, reinterpret_cast<const hwy::bfloat16_t*>(from)));
}
HWY_INLINE Vector load(const Float16* from) {
#if HWY_TARGET <= HWY_AVX2 || HWY_TARGET == HWY_NEON
  const hn::Rebind<hwy::float16_t, Floats> narrow;
  return hn::PromoteTo(kFloats, hn::LoadU(narrow, reinterpret_cast<const hwy::float16_t*>(from)));
#else
  return load_wide(from);  // the portable lanes' own widening takes infinities for numbers
#endif
}

/// The first `count` < kLanes elements, widened, and zeros after them. Touches no memory beyond them.
template <class T> HWY_INLINE Vector load_first(const T* from, int64_t count) {
  HWY_ALIGN T buffer[kLanes] = {};
  std::memcpy(buffer, from, static_cast<size_t>(count) * sizeof(T));
  return load(buffer);
}

// From AVX2 on masked moves do not fault on what is masked off, and cost what whole ones do.
#if HWY_TARGET <= HWY_AVX2
HWY_INLINE Vector load_first(const float* from, int64_t count) {
  return hn::MaskedLoad(hn::FirstN(kFloats, static_cast<size_t>(count)), kFloats, from);
}
HWY_INLINE void store_first(Vector v, float* to, int64_t count) {
  hn::BlendedStore(v, hn::FirstN(kFloats, static_cast<size_t>(count)), kFloats, to);
}
#else
HWY_INLINE void store_first(Vector v, float* to, int64_t count) {
  HWY_ALIGN float buffer[kLanes];
  hn::Store(v, kFloats, buffer);
  std::memcpy(to, buffer, static_cast<size_t>(count) * sizeof(float));
}
#endif

template <class T> HWY_INLINE Vector load_some(const T* from, int64_t count) {
  return count >= kLanes ? load(from) : load_first(from, count);
}

HWY_INLINE void store_some(Vector v, float* to, int64_t count) {
  if (count >= kLanes)
    hn::StoreU(v, kFloats, to);
  else
    store_first(v, to, count);
}

/// Turns the square block whose rows are v: neighbouring rows are split into evens and odds log2(kLanes) times.
HWY_INLINE void turn(Vector (&v)[kLanes]) {
  Vector w[kLanes];
  for (int step = 1; step < kLanes; step *= 2) {
    for (int i = 0; i < kLanes / 2; ++i) {
      w[i] = evens(v[2 * i], v[2 * i + 1]);
      w[i + kLanes / 2] = odds(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < kLanes; ++i) v[i] = w[i];
  }
}

/// to[c, r] = scale · from[r, c] for r < rows <= kLanes, c < cols <= kLanes; lanes r >= rows are written as zeros up to
/// `lanes`.
template <class T>
HWY_INLINE void transpose_block(const T* from, int64_t from_stride, int64_t rows, int64_t cols, float scale, float* to,
                                int64_t to_stride, int64_t lanes) {
  Vector v[kLanes];
  const Vector factor = hn::Set(kFloats, scale);
  // Rows that do not exist are zeros and are never read; the turned block then has zeros in their lanes.
  for (int r = 0; r < kLanes; ++r)
    v[r] = r < rows ? hn::Mul(factor, load_some(from + r * from_stride, cols)) : hn::Zero(kFloats);
  turn(v);
  // Rows of the result that do not exist are not written: behind the last column there may be no memory.
  for (int c = 0; c < kLanes; ++c)
    if (c < cols) store_some(v[c], to + c * to_stride, lanes);
}

/// The operands of one product, as in the formula on top: c [m, n], with strides in elements. a may be stored either
/// way; rows of b and of c are contiguous.
struct TileArgs {
  int64_t m, n, k;
  const float* a;
  int64_t row_step, k_step;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  float alpha, beta;
  bool chain = false;
  int64_t ahead = 0;  // elements from a tile of c to one that is read later, and is fetched meanwhile
  int64_t tile_step = kTileRows * row_step;  // from the first row of a tile to that of the next, if not as within one
};

/// One tile at row i of c, which meets the rows of a from `a` on, and column j. last: elements of its last vector that
/// exist (kLanes: all of them).
template <int kRows, int kCols, bool kPartial>
HWY_INLINE void tile(const TileArgs& t, const float* HWY_RESTRICT a, int64_t i, int64_t j, int64_t last) {
  Vector sums[kRows][kCols];
  const auto count = [&](int s) { return kPartial && s == kCols - 1 ? last : kLanes; };
  const auto place = [&](int r, int s) { return t.c + (i + r) * t.ldc + j + s * kLanes; };
  // What is asked once a tile is asked outside of the loops over its elements: with a short k they are most of the
  // work.
  if (t.chain && t.beta != 0) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int s = 0; s < kCols; ++s) sums[r][s] = load_some(place(r, s), count(s));
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int s = 0; s < kCols; ++s) sums[r][s] = hn::Zero(kFloats);
  }
  if (t.k >= kWorthFetching) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int s = 0; s < kCols; s += kLineVectors) hwy::Prefetch(place(r, s) + t.ahead);
  }
  const float* HWY_RESTRICT b = t.b + j;
  // An outer product a step: one row of b, kept in registers, times one element of each row of a.
  for (int64_t k = 0; k < t.k; ++k, a += t.k_step, b += t.ldb) {
    Vector columns[kCols];
#pragma GCC unroll 3
    for (int s = 0; s < kCols; ++s)
      columns[s] = kPartial && s == kCols - 1 ? load_first(b + s * kLanes, last) : hn::LoadU(kFloats, b + s * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vector x = hn::Set(kFloats, a[r * t.row_step]);
#pragma GCC unroll 3
      for (int s = 0; s < kCols; ++s) sums[r][s] = fused(x, columns[s], sums[r][s]);
    }
  }
  if (t.chain) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 3
      for (int s = 0; s < kCols; ++s) store_some(sums[r][s], place(r, s), count(s));
    return;
  }
  // Scaled once, after the sum. beta = 0 does not read c, which may hold anything.
  const Vector alpha = hn::Set(kFloats, t.alpha), beta = hn::Set(kFloats, t.beta);
  const bool adds = t.beta != 0;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int s = 0; s < kCols; ++s) {
      Vector y = hn::Mul(alpha, sums[r][s]);
      if (adds) y = fused(beta, load_some(place(r, s), count(s)), y);
      store_some(y, place(r, s), count(s));
    }
  }
}

/// All rows of a strip of kCols vectors at column j.
template <int kCols, bool kPartial> HWY_INLINE void strip(const TileArgs& t, int64_t j, int64_t last) {
  // What is left of the rows in tiles of falling height. An element's sum does not depend on its tile's height.
  const float* a = t.a;
  int64_t i = 0;
  for (; i + kTileRows <= t.m; i += kTileRows, a += t.tile_step) tile<kTileRows, kCols, kPartial>(t, a, i, j, last);
  if (kTileRows > 4 && i + 4 <= t.m) tile<4, kCols, kPartial>(t, a, i, j, last), i += 4, a += 4 * t.row_step;
  if (i + 2 <= t.m) tile<2, kCols, kPartial>(t, a, i, j, last), i += 2, a += 2 * t.row_step;
  if (i < t.m) tile<1, kCols, kPartial>(t, a, i, j, last);
}

/// Vectors of the next strip where `left` are left. Four are cut 2 + 2, since one alone cannot feed the multipliers.
HWY_INLINE int64_t strip_vectors(int64_t left) { return left >= 3 && left != 4 ? 3 : left >= 2 ? 2 : 1; }

/// All of c.
/// Not inlined: with its 24 tiles it is most of what a file that includes this compiles.
static HWY_NOINLINE void product(const TileArgs& t) {
  int64_t j = 0;
  for (int64_t left = (t.n + kLanes - 1) / kLanes; left > 0;) {
    const int64_t cols = strip_vectors(left);
    // Elements of the strip's last vector that exist: only there loads and stores are partial.
    const int64_t last = t.n - j - (cols - 1) * kLanes;
    if (last >= kLanes) {
      if (cols == 3)
        strip<3, false>(t, j, kLanes);
      else if (cols == 2)
        strip<2, false>(t, j, kLanes);
      else
        strip<1, false>(t, j, kLanes);
    } else {
      if (cols == 3)
        strip<3, true>(t, j, last);
      else if (cols == 2)
        strip<2, true>(t, j, last);
      else
        strip<1, true>(t, j, last);
    }
    left -= cols;
    j += cols * kLanes;
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
