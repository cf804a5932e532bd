// Products of few rows or few columns that add in any order: what the kernels in one order are compared with. Included
// once per instruction set by free_order_bench.cpp.
//
//   tiles    C[i, j] = Σ_k A[i, k] · B[j, k]: vectors along k, 3 x 8 (AVX2: 3 x 4) running sums, folded at the end
//   streams  the same for one row of A: a row of B at a time, four running sums, what lies ahead is prefetched

#if defined(TESSERA_BENCH_FREE_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_BENCH_FREE_PRODUCTS_INL_H_
#undef TESSERA_BENCH_FREE_PRODUCTS_INL_H_
#else
#define TESSERA_BENCH_FREE_PRODUCTS_INL_H_
#endif

#include "hwy/cache_control.h"
#include "kernels/cpu/tile-inl.h"
#include "kernels/gemm.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::free_order::HWY_NAMESPACE {

using namespace tessera::cpu::HWY_NAMESPACE;  // NOLINT: the lanes and tiles that both are built of

// Running sums, a vector of each row of A and one of B: 24 + 3 + 1 of 32 registers, 12 + 3 + 1 of 16.
constexpr int kDotRows = 3, kDotCols = HWY_TARGET <= HWY_AVX3 ? 8 : 4;

/// c [m, n] = a [m, k] · bᵀ with b [n, k] in its storage type. Strides are in elements.
struct DotArgs {
  int64_t m, n, k;
  const float* a;
  int64_t lda;
  const void* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
};

/// sums[j] = Σ lanes of vectors[j]: neighbours are added, and two vectors packed into one.
template <int kCount> HWY_INLINE void sum_lanes(Vector* vectors, float* sums) {
  int count = kCount;
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

template <int kRows, int kCols, class T> HWY_INLINE void dot_tile(const DotArgs& d, int64_t i, int64_t j) {
  Vector sums[kRows][kCols], x[kRows];
  for (int r = 0; r < kRows; ++r)
    for (int s = 0; s < kCols; ++s) sums[r][s] = hn::Zero(kFloats);
  const float* a = d.a + i * d.lda;
  const T* b = static_cast<const T*>(d.b) + j * d.ldb;
  for (int64_t k = 0; k < d.k; k += kLanes) {  // k is a multiple of the lanes in what is measured
    for (int r = 0; r < kRows; ++r) x[r] = hn::LoadU(kFloats, a + r * d.lda + k);
    for (int s = 0; s < kCols; ++s) {
      const Vector y = load(b + s * d.ldb + k);
      for (int r = 0; r < kRows; ++r) sums[r][s] = fused(x[r], y, sums[r][s]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float totals[kCols];
    sum_lanes<kCols>(sums[r], totals);
    std::copy_n(totals, kCols, d.c + (i + r) * d.ldc + j);
  }
}

template <int kRows, class T> HWY_INLINE void dot_strip(const DotArgs& d, int64_t i) {
  int64_t j = 0;
  for (; j + kDotCols <= d.n; j += kDotCols) dot_tile<kRows, kDotCols, T>(d, i, j);
  for (; j < d.n; ++j) dot_tile<kRows, 1, T>(d, i, j);
}

template <class T> void dot_rows(const DotArgs& d) {
  int64_t i = 0;
  for (; i + kDotRows <= d.m; i += kDotRows) dot_strip<kDotRows, T>(d, i);
  if (i + 2 <= d.m) dot_strip<2, T>(d, i), i += 2;
  if (i < d.m) dot_strip<1, T>(d, i);
}

/// One row of A.
template <class T> void stream_rows(const DotArgs& d) {
  constexpr int kSums = 4;
  constexpr int64_t kAhead = 2048 / static_cast<int64_t>(sizeof(T)), kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t j = 0; j < d.n; ++j) {
    const T* b = static_cast<const T*>(d.b) + j * d.ldb;
    Vector sums[kSums];
    for (Vector& sum : sums) sum = hn::Zero(kFloats);
    int64_t k = 0;
    for (; k + kSums * kLanes <= d.k; k += kSums * kLanes) {
      for (int64_t line = 0; line < kSums * kLanes; line += kLine) hwy::Prefetch(b + k + kAhead + line);
      for (int s = 0; s < kSums; ++s) {
        const int64_t at = k + s * kLanes;
        sums[s] = fused(hn::LoadU(kFloats, d.a + at), load(b + at), sums[s]);
      }
    }
    for (; k < d.k; k += kLanes) sums[0] = fused(hn::LoadU(kFloats, d.a + k), load(b + k), sums[0]);
    const Vector total = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
    d.c[j] = hn::GetLane(hn::SumOfLanes(kFloats, total));
  }
}

/// Rows [m_begin, m_end) and columns [n_begin, n_end) of C = A · Bᵀ.
template <class T>
void dot_block(const GemmArgs& g, bool streams, int64_t m_begin, int64_t m_end, int64_t n_begin, int64_t n_end) {
  const DotArgs d{m_end - m_begin,  n_end - n_begin,     g.a.shape[1],     g.a.row<float>(m_begin),
                  g.a.row_stride(), g.b.row<T>(n_begin), g.b.row_stride(), g.c.row<float>(m_begin) + n_begin,
                  g.c.row_stride()};
  if (streams) return stream_rows<T>(d);
  dot_rows<T>(d);
}

void thin_block(const GemmArgs& g, bool streams, int64_t m_begin, int64_t m_end, int64_t n_begin, int64_t n_end) {
  if (g.b.dtype == DType::bf16) return dot_block<BFloat16>(g, streams, m_begin, m_end, n_begin, n_end);
  if (g.b.dtype == DType::f16) return dot_block<Float16>(g, streams, m_begin, m_end, n_begin, n_end);
  dot_block<float>(g, streams, m_begin, m_end, n_begin, n_end);
}

}  // namespace tessera::free_order::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
