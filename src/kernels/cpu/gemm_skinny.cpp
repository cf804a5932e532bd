// Matrix products with one small dimension, where packing would not pay: the low-rank products of LoRA, decoding.
//
//   op(B) = Bᵀ: one operand is thin (few rows of A, or few of B), the other wide. A group of the wide one's rows, as
//               many as a vector has lanes, is read four words at a time, which are turned in registers: a lane is a
//               row. Groups side by side keep the multipliers busy while an addition waits for the one before it.
//
//                 k →            k ↓
//               [ wide ]  turn  [ lanes: rows ]   sums[i] += thin[i, k] · lanes     for each row i of the thin one
//
//               Nothing is packed. What the next group reads lies behind it in one piece, and is fetched meanwhile.
//   op(B) = B:  vectors lie along a row of B; the tile of tile-inl.h, B where it lies
//
// An element is summed over k in the order of gemm.h either way: the choice between kernels is about speed alone.

#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/targets.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm_skinny.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/tile-inl.h"

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

// A block is turned as 32-bit words, so that two 16-bit elements travel together and are widened behind it.
using Words = hn::RebindToUnsigned<Floats>;
constexpr int kQuad = 4;  // words of a row that are turned at a time
template <class T> constexpr int kInWord = 4 / static_cast<int>(sizeof(T));
template <class T> constexpr int kInQuad = kQuad* kInWord<T>;
template <class T> constexpr int kElements = kLanes* kInWord<T>;  // of each row in a block

/// Four words of the rows 4 l: block l of the result is that of row 4 l.
HWY_INLINE Vector load_blocks(const std::byte* at, int64_t row_bytes) {
  const auto row = [&](int l) { return reinterpret_cast<const float*>(at + 4 * l * row_bytes); };
#if HWY_TARGET <= HWY_AVX3
  const hn::Half<Floats> half;
  const hn::Half<decltype(half)> quarter;
  return hn::Combine(kFloats, hn::Combine(half, hn::LoadU(quarter, row(3)), hn::LoadU(quarter, row(2))),
                     hn::Combine(half, hn::LoadU(quarter, row(1)), hn::LoadU(quarter, row(0))));
#elif HWY_TARGET <= HWY_AVX2
  const hn::Half<Floats> half;
  return hn::Combine(kFloats, hn::LoadU(half, row(1)), hn::LoadU(half, row(0)));
#else
  return hn::LoadU(kFloats, row(0));
#endif
}

/// v[j]: word j of the kLanes rows that begin at `from`. Squares of 4 x 4 words are turned within the 128-bit blocks.
HWY_INLINE void load_turned(const std::byte* from, int64_t row_bytes, Vector (&v)[kQuad]) {
  const hn::Repartition<double, Floats> pairs;
  Vector w[kQuad];
  for (int r = 0; r < kQuad; ++r) w[r] = load_blocks(from + r * row_bytes, row_bytes);
  const auto low = hn::BitCast(pairs, hn::InterleaveLower(kFloats, w[0], w[1]));
  const auto high = hn::BitCast(pairs, hn::InterleaveUpper(kFloats, w[0], w[1]));
  const auto low2 = hn::BitCast(pairs, hn::InterleaveLower(kFloats, w[2], w[3]));
  const auto high2 = hn::BitCast(pairs, hn::InterleaveUpper(kFloats, w[2], w[3]));
  v[0] = hn::BitCast(kFloats, hn::InterleaveLower(pairs, low, low2));
  v[1] = hn::BitCast(kFloats, hn::InterleaveUpper(pairs, low, low2));
  v[2] = hn::BitCast(kFloats, hn::InterleaveLower(pairs, high, high2));
  v[3] = hn::BitCast(kFloats, hn::InterleaveUpper(pairs, high, high2));
}

/// The elements of turned words, widened.
HWY_INLINE void widen(Vector v, Vector (&to)[1], const float*) { to[0] = v; }
HWY_INLINE void widen(Vector v, Vector (&to)[2], const BFloat16*) {
  const auto word = hn::BitCast(Words(), v);
  to[0] = hn::BitCast(kFloats, hn::ShiftLeft<16>(word));
  to[1] = hn::BitCast(kFloats, hn::And(word, hn::Set(Words(), 0xffff0000u)));
}
HWY_INLINE void widen(Vector v, Vector (&to)[2], const Float16*) {
#if HWY_TARGET <= HWY_AVX2
  // The first elements of all words, and the second ones: halves that are widened as they are.
  const hn::Repartition<uint16_t, Floats> halves;
  const hn::Half<decltype(halves)> half;
#if HWY_TARGET <= HWY_AVX3
  const auto both = hn::BitCast(halves, v);
  const auto first = hn::LowerHalf(half, hn::ConcatEven(halves, both, both));
  const auto second = hn::LowerHalf(half, hn::ConcatOdd(halves, both, both));
#else
  HWY_ALIGN static constexpr uint8_t kBytes[32] = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
                                                   0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};
  HWY_ALIGN static constexpr uint32_t kOrder[8] = {0, 1, 4, 5, 2, 3, 6, 7};
  const hn::Repartition<uint8_t, Floats> bytes;
  const auto blocks = hn::TableLookupBytes(hn::BitCast(bytes, v), hn::Load(bytes, kBytes));
  const auto sorted =
      hn::BitCast(halves, hn::TableLookupLanes(hn::BitCast(Words(), blocks), hn::SetTableIndices(Words(), kOrder)));
  const auto first = hn::LowerHalf(half, sorted), second = hn::UpperHalf(half, sorted);
#endif
  const hn::Rebind<hwy::float16_t, Floats> narrow;
  to[0] = hn::PromoteTo(kFloats, hn::BitCast(narrow, first));
  to[1] = hn::PromoteTo(kFloats, hn::BitCast(narrow, second));
#else
  const auto word = hn::BitCast(Words(), v);
  to[0] = widen_f16(hn::And(word, hn::Set(Words(), 0xffffu)));
  to[1] = widen_f16(hn::ShiftRight<16>(word));
#endif
}

// Groups that are summed side by side, since an addition waits for the one before it in its chain: sixteen rows, of
// which a line each stays in the first-level cache while its words are read (with 32 rows AVX-512 is a third slower).
// And how many of them are turned before they meet the thin rows, an element of which is then broadcast once for all.
template <int kThin> constexpr int kGroups = kThin <= 4 && kLanes < 16 ? 16 / kLanes : 1;
template <int kThin> constexpr int kTurned = kThin == 1 ? std::min(2, kGroups<kThin>) : 1;

/// Rows of the wide operand against the thin ones: some words of kGroup groups.
template <int kThin, int kGroup, class T> struct Quads {
  static constexpr int kSide = std::min(kGroup, kTurned<kThin>);
  const float* thin[kThin];
  Vector sums[kGroup][kThin];

  /// Adds `count` elements from element k of the thin rows on; block(g) is where those of group g begin, in rows that
  /// are row_bytes apart.
  template <class Block> HWY_INLINE void add(int64_t k, int count, int64_t row_bytes, Block&& block) {
#pragma GCC unroll 4
    for (int first = 0; first < kGroup; first += kSide) {
      Vector v[kSide][kQuad];
#pragma GCC unroll 2
      for (int s = 0; s < kSide; ++s) load_turned(block(first + s), row_bytes, v[s]);
#pragma GCC unroll 4
      for (int word = 0; word < kQuad; ++word) {
        Vector w[kSide][kInWord<T>];
        for (int s = 0; s < kSide; ++s) widen(v[s][word], w[s], static_cast<const T*>(nullptr));
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
  }
};

/// `rows` rows of the wide operand, at most those of kGroup groups, against kThin rows of the thin one. kWhole: all
/// rows exist. next: the rows behind them.
template <int kThin, int kGroup, bool kWhole, class T>
HWY_INLINE void meet(const ThinArgs& t, const T* wide, int64_t rows, float* c, const T* next) {
  constexpr int64_t kSize = static_cast<int64_t>(sizeof(T)), kGroupBytes = kLanes * kElements<T> * kSize;
  constexpr int kLine = 64;
  const auto* ahead = reinterpret_cast<const std::byte*>(next);
  Quads<kThin, kGroup, T> q;
  // Rows that do not exist repeat the last one, and are not stored.
  for (int i = 0; i < kThin; ++i) q.thin[i] = t.thin + std::min<int64_t>(i, t.thin_rows - 1) * t.thin_stride;
  const auto place = [&](int g, int i) {
    return SumsPlace{c + i * t.thin_step + g * kLanes * t.wide_step, t.wide_step, std::min<int64_t>(kLanes, rows)};
  };
  const bool goes_on = t.chain && t.beta != 0;
  const int64_t length = t.chain ? t.k : kBlockK;
  for (int64_t begin = 0; begin < t.k; begin += length) {
    const int64_t end = std::min(t.k, begin + length);
    for (int g = 0; g < kGroup; ++g)
      for (int i = 0; i < kThin; ++i)
        q.sums[g][i] = goes_on && i < t.thin_rows ? place(g, i).load() : hn::Zero(kFloats);
    int64_t k = begin;
    for (; kWhole && k + kElements<T> <= end; k += kElements<T>) {
#pragma GCC unroll 4
      for (int at = 0; at < kElements<T>; at += kInQuad<T>) {
        // As many bytes as are used here, a few lines at a time: the processor can wait for some only.
        for (int b = 0; b < kGroup * kLanes * kQuad * 4; b += kLine) hwy::Prefetch(ahead + b);
        ahead += kGroup * kLanes * kQuad * 4;
        q.add(k + at, kInQuad<T>, t.wide_stride * kSize,
              [&](int g) { return reinterpret_cast<const std::byte*>(wide + g * kLanes * t.wide_stride + k + at); });
      }
    }
    for (; k < end; k += kElements<T>) {
      // Nothing is added for elements that do not exist: zero times infinity would be no zero.
      const int64_t elements = std::min<int64_t>(kElements<T>, end - k);
      HWY_ALIGN std::byte copy[kGroup * kGroupBytes] = {};
      for (int64_t r = 0; r < std::min<int64_t>(rows, kGroup * kLanes); ++r)
        std::memcpy(copy + r * kElements<T> * kSize, wide + r * t.wide_stride + k,
                    static_cast<size_t>(elements * kSize));
      for (int64_t at = 0; at < elements; at += kInQuad<T>)
        q.add(k + at, static_cast<int>(std::min<int64_t>(kInQuad<T>, elements - at)), kElements<T> * kSize,
              [&](int g) { return copy + g * kGroupBytes + at * kSize; });
    }
    const float beta = begin == 0 ? t.beta : 1;
    for (int g = 0; g < kGroup; ++g)
      for (int i = 0; i < kThin; ++i) {
        if (i >= t.thin_rows) break;
        Vector y = t.chain ? q.sums[g][i] : hn::Mul(hn::Set(kFloats, t.alpha), q.sums[g][i]);
        if (!t.chain && beta != 0) y = fused(hn::Set(kFloats, beta), place(g, i).load(), y);
        place(g, i).store(y);
      }
  }
}

template <int kThin, class T> void groups(const ThinArgs& t) {
  constexpr int kGroup = kGroups<kThin>;
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

template <class T> void thin_product(const ThinArgs& t) {
  static_assert(kMostThin == 12);
  if (t.thin_rows == 1) return groups<1, T>(t);
  if (t.thin_rows == 2) return groups<2, T>(t);
  if (t.thin_rows <= 4) return groups<4, T>(t);
  if (t.thin_rows <= 6) return groups<6, T>(t);
  if (t.thin_rows <= 8) return groups<8, T>(t);
  groups<12, T>(t);
}

/// op(B) = B, in the blocks of k that gemm.h asks for.
HWY_INLINE void straight_product(TileArgs t) {
  const int64_t k_all = t.k, length = t.chain ? k_all : kBlockK;
  for (int64_t begin = 0; begin < k_all; begin += length) {
    t.k = std::min(length, k_all - begin);
    product(t);
    t.a += t.k * t.k_step;
    t.b += t.k * t.ldb;
    t.beta = 1;
  }
}

/// The same a few rows after the other, where there is so little to sum that C is most of what is moved: it goes
/// through in the order of its storage.
HWY_INLINE void straight_rows(TileArgs t) {
  const int64_t rows = t.k <= kShortSum ? kTileRows : t.m;
  for (int64_t left = t.m; left > 0; left -= rows) {
    t.m = std::min(rows, left);
    straight_product(t);
    t.a += rows * t.row_step;
    t.c += rows * t.ldc;
  }
}

/// Rows [m_begin, m_end) and columns [n_begin, n_end) of C.
void skinny_block(const GemmArgs& g, int64_t m_begin, int64_t m_end, int64_t n_begin, int64_t n_end) {
  const int64_t m = m_end - m_begin, n = n_end - n_begin, k = inner_size(g), ldc = g.c.row_stride();
  const bool a_transposed = g.a_transpose == Transpose::yes, chain = g.sum == Sum::chain;
  const float alpha = static_cast<float>(g.alpha), beta = static_cast<float>(g.beta);
  float* c = g.c.row<float>(m_begin) + n_begin;
  if (g.b_transpose == Transpose::no) {
    const int64_t row_step = a_transposed ? 1 : g.a.row_stride(), k_step = a_transposed ? g.a.row_stride() : 1;
    return straight_rows({m, n, k, g.a.row<float>(0) + m_begin * row_step, row_step, k_step,
                          g.b.row<float>(0) + n_begin, g.b.row_stride(), c, ldc, alpha, beta, chain});
  }
  // op(B) = Bᵀ: the columns of C are rows of B as it is stored.
  const float* a = g.a.row<float>(m_begin);
  const auto* b = static_cast<const std::byte*>(g.b.data) + n_begin * g.b.row_stride() * size_of(g.b.dtype);
  if (g.c.rows() > kMostThin)  // few columns, of a B in f32
    return thin_product<float>({n, m, k, reinterpret_cast<const float*>(b), g.b.row_stride(), a, g.a.row_stride(), c, 1,
                                ldc, alpha, beta, chain});
  const ThinArgs t{m, n, k, a, g.a.row_stride(), b, g.b.row_stride(), c, ldc, 1, alpha, beta, chain};
  if (g.b.dtype == DType::f32)
    thin_product<float>(t);
  else if (g.b.dtype == DType::bf16)
    thin_product<BFloat16>(t);
  else
    thin_product<Float16>(t);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
namespace {

HWY_EXPORT(skinny_block);

// Rows that a thread takes at a time, and the least of columns. Otherwise a thread's columns are one piece: weights
// that come from memory are fetched behind one another within it.
constexpr int64_t kRowBlock = 48, kColumnBlock = 32;

int64_t columns_of_piece(int64_t n, int64_t threads) {
  return parts_of(parts_of(n, threads), kColumnBlock) * kColumnBlock;
}

/// Whether C is cut by rows. Its longer side is cut, since the shorter one may be less than a block; but with little to
/// sum C is most of what is moved, and goes through in the order of its storage.
bool by_rows(const GemmArgs& g) {
  return g.c.rows() >= g.c.cols() || (g.b_transpose == Transpose::no && inner_size(g) <= kShortSum);
}

}  // namespace

void skinny_gemm(const Context& ctx, const GemmArgs& g) {
  const int64_t m = g.c.rows(), n = g.c.cols();
  const bool rows = by_rows(g);
  const int64_t length = rows ? m : n, step = rows ? kRowBlock : columns_of_piece(n, ctx.threads);
  const bool parallel = length > step && m * n * inner_size(g) > kSmallWork;
  const auto block = HWY_DYNAMIC_DISPATCH(skinny_block);
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads) if (parallel)
  for (int64_t begin = 0; begin < length; begin += step) {
    const int64_t end = std::min(length, begin + step);
    if (rows)
      block(g, begin, end, 0, n);
    else
      block(g, 0, m, begin, end);
  }
}

void skinny_part(const GemmArgs& g) { HWY_DYNAMIC_DISPATCH(skinny_block)(g, 0, g.c.rows(), 0, g.c.cols()); }

}  // namespace tessera::cpu
#endif
