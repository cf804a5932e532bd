// Matrix products with one small dimension, where packing would not pay: the low-rank products of LoRA, decoding.
//
//   rows of B are dotted:  C[i, j] = Σ_k A[i, k] · B[j, k]   vectors along k; 3 × 8 running sums, folded at the end
//   rows of B are added:   C[i, :] = Σ_k op(A)[i, k] · B[k, :]   vectors along a row of B; the tile of tile-inl.h
//
// Either way an element is summed in one order that no block, thread or neighbour changes,
// so that rows may be shared out.

#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/targets.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm_skinny.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

// Running sums, a vector of each row of A and one of B: 24 + 3 + 1 of 32 registers, 12 + 3 + 1 of 16.
#if HWY_TARGET <= HWY_AVX3
constexpr int kDotRows = 3, kDotCols = 8;
#else
constexpr int kDotRows = 3, kDotCols = 4;
#endif

/// sums[j] = Σ lanes of vectors[j], by adding neighbours: every sum is the same tree, whatever kCount is.
template <int kCount> HWY_INLINE void sum_lanes(Vector* vectors, float* sums) {
  int count = kCount;
  // Each pass adds neighbouring lanes and packs two vectors into one; when one vector is left it is folded with itself.
  for (int lanes = kLanes; lanes > 1; lanes /= 2) {
    for (int i = 0; i < std::max(1, count / 2); ++i) {
      const Vector low = vectors[2 * i], high = vectors[count > 1 ? 2 * i + 1 : 0];
      vectors[i] = hn::Add(evens(low, high), odds(low, high));
    }
    count = std::max(1, count / 2);
  }
  HWY_ALIGN float all[kLanes * kCount];
  for (int i = 0; i < count; ++i) hn::Store(vectors[i], kFloats, all + i * kLanes);
  std::memcpy(sums, all, kCount * sizeof(float));
}

/// c [m, n] = alpha · a [m, k] · bᵀ + beta · c with b [n, k] in its storage type. Strides are in elements.
struct DotArgs {
  int64_t m, n, k;
  const float* a;
  int64_t lda;
  const void* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  float alpha, beta;
};

template <int kRows, int kCols, class T> HWY_INLINE void dot_tile(const DotArgs& d, int64_t i, int64_t j) {
  Vector sums[kRows][kCols], x[kRows];
  for (int r = 0; r < kRows; ++r)
    for (int s = 0; s < kCols; ++s) sums[r][s] = hn::Zero(kFloats);
  const float* a = d.a + i * d.lda;
  const T* b = static_cast<const T*>(d.b) + j * d.ldb;
  int64_t k = 0;
  for (; k + kLanes <= d.k; k += kLanes) {
    for (int r = 0; r < kRows; ++r) x[r] = hn::LoadU(kFloats, a + r * d.lda + k);
    for (int s = 0; s < kCols; ++s) {
      const Vector y = load(b + s * d.ldb + k);
      for (int r = 0; r < kRows; ++r) sums[r][s] = fused(x[r], y, sums[r][s]);
    }
  }
  // The remainder is padded with zeros on both sides, which add nothing to a sum.
  if (k < d.k) {
    for (int r = 0; r < kRows; ++r) x[r] = load_first(a + r * d.lda + k, d.k - k);
    for (int s = 0; s < kCols; ++s) {
      const Vector y = load_first(b + s * d.ldb + k, d.k - k);
      for (int r = 0; r < kRows; ++r) sums[r][s] = fused(x[r], y, sums[r][s]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float totals[kCols];
    sum_lanes<kCols>(sums[r], totals);
    float* c = d.c + (i + r) * d.ldc + j;
    // beta = 0 must not look at c, which may be uninitialised or NaN.
    for (int s = 0; s < kCols; ++s) c[s] = d.alpha * totals[s] + (d.beta == 0 ? 0 : d.beta * c[s]);
  }
}

template <int kRows, class T> HWY_INLINE void dot_strip(const DotArgs& d, int64_t i) {
  // What is left of the columns in tiles of falling width. An element's sum does not depend on the width of its tile.
  int64_t j = 0;
  for (; j + kDotCols <= d.n; j += kDotCols) dot_tile<kRows, kDotCols, T>(d, i, j);
  if (kDotCols > 4 && j + 4 <= d.n) dot_tile<kRows, 4, T>(d, i, j), j += 4;
  if (j + 2 <= d.n) dot_tile<kRows, 2, T>(d, i, j), j += 2;
  if (j < d.n) dot_tile<kRows, 1, T>(d, i, j);
}

template <class T> void dot_rows(const DotArgs& d) {
  int64_t i = 0;
  for (; i + kDotRows <= d.m; i += kDotRows) dot_strip<kDotRows, T>(d, i);
  if (i + 2 <= d.m) dot_strip<2, T>(d, i), i += 2;
  if (i < d.m) dot_strip<1, T>(d, i);
}

/// Rows [m_begin, m_end) and columns [n_begin, n_end) of C.
void skinny_block(const GemmArgs& g, int64_t m_begin, int64_t m_end, int64_t n_begin, int64_t n_end) {
  const int64_t m = m_end - m_begin, n = n_end - n_begin;
  const bool a_transposed = g.a_transpose == Transpose::yes;
  const int64_t k = inner_size(g);
  const float alpha = static_cast<float>(g.alpha), beta = static_cast<float>(g.beta);
  float* c = g.c.row<float>(m_begin) + n_begin;
  if (g.b_transpose == Transpose::no) {
    const int64_t row_step = a_transposed ? 1 : g.a.row_stride(), k_step = a_transposed ? g.a.row_stride() : 1;
    const TileArgs t{m,
                     n,
                     k,
                     g.a.row<float>(0) + m_begin * row_step,
                     row_step,
                     k_step,
                     g.b.row<float>(0) + n_begin,
                     g.b.row_stride(),
                     c,
                     g.c.row_stride(),
                     alpha,
                     beta};
    return product(t);
  }
  // op(B) = Bᵀ: the columns of C are rows of B as it is stored.
  const auto* b = static_cast<const std::byte*>(g.b.data) + n_begin * g.b.row_stride() * size_of(g.b.dtype);
  const DotArgs d{m,     n,   k, g.a.row<float>(m_begin), g.a.row_stride(), b, g.b.row_stride(), c, g.c.row_stride(),
                  alpha, beta};
  if (g.b.dtype == DType::f32)
    dot_rows<float>(d);
  else if (g.b.dtype == DType::bf16)
    dot_rows<BFloat16>(d);
  else
    dot_rows<Float16>(d);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
namespace {

HWY_EXPORT(skinny_block);

// Rows or columns of C that a thread takes at a time.
constexpr int64_t kRowBlock = 48, kColumnBlock = 96;

}  // namespace

void skinny_gemm(const Context& ctx, const GemmArgs& g) {
  const int64_t m = g.c.rows(), n = g.c.cols();
  const bool by_rows = m >= n;
  // The longer side of C is cut: the shorter one may be less than a block.
  const int64_t length = by_rows ? m : n, step = by_rows ? kRowBlock : kColumnBlock;
  const bool parallel = length > step && m * n * inner_size(g) > kSmallWork;
  const auto block = HWY_DYNAMIC_DISPATCH(skinny_block);
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads) if (parallel)
  for (int64_t begin = 0; begin < length; begin += step) {
    const int64_t end = std::min(length, begin + step);
    if (by_rows)
      block(g, begin, end, 0, n);
    else
      block(g, 0, m, begin, end);
  }
}

void skinny_part(const GemmArgs& g) { HWY_DYNAMIC_DISPATCH(skinny_block)(g, 0, g.c.rows(), 0, g.c.cols()); }

}  // namespace tessera::cpu
#endif
