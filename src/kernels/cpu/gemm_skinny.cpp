// Matrix products with one small dimension, where packing would not pay: the low-rank products of LoRA, decoding.
//
//   op(B) = Bᵀ: one operand is thin (few rows of A, or few of B), the other wide. Rows of the wide one, as many as a
//               vector has lanes, are turned a few words at a time: a lane is a row (turned-inl.h).
//
//                 k →            k ↓
//               [ wide ]  turn  [ lanes: rows ]   sums[i] += thin[i, k] · lanes     for each row i of the thin one
//
//               The sums stay in registers (thin-inl.h), or where these are too few the turned rows go through a panel
//               on the stack (thin_panel-inl.h). What is read next is fetched meanwhile.
//   op(B) = B:  vectors lie along a row of B; the tile of tile-inl.h, B where it lies
//
// An element is summed over k in the order of gemm.h either way: the choice between kernels is about speed alone.

#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/targets.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm_skinny.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/thin-inl.h"
#include "kernels/cpu/thin_panel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

template <class T> void thin_product(const ThinArgs& t) {
  static_assert(kMostThin == 12);
  // Of f32 a panel would be quicker in a cache, and slower from memory. Plain loops have the least to compile.
  constexpr bool kTurnsPanels = HWY_TARGET == HWY_AVX2 && sizeof(T) == 2, kPlain = HWY_TARGET == HWY_EMU128;
  if (t.thin_rows == 1) return groups<1, T>(t);
  if constexpr (!kPlain) {
    if (t.thin_rows == 2) return groups<2, T>(t);
    if (t.thin_rows <= 4) return groups<4, T>(t);
    if (t.thin_rows <= 6) return groups<6, T>(t);
    if (t.thin_rows <= 8) return groups<8, T>(t);
  }
  if constexpr (kPlain || kTurnsPanels)
    panels<T>(t);
  else
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
  if (g.c.rows() > kMostThin) {  // few columns, of a B in f32
    const ThinArgs t{
        n,     m,    k,    reinterpret_cast<const float*>(b), g.b.row_stride(), a, g.a.row_stride(), c, 1, ldc,
        alpha, beta, chain};
    return HWY_TARGET == HWY_AVX2 && n == kLanes ? few_columns(t) : thin_product<float>(t);
  }
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
