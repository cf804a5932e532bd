// The softmax of a panel's scores in spans of keys: a query is a column, and a vector of columns goes together. Block
// by block the sums are rescaled (online softmax), at a span's end they become its output, and outputs of spans merge.
//
// Included once per SIMD target, behind attention_panel-inl.h.
#if defined(TESSERA_KERNELS_CPU_ATTENTION_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_ATTENTION_SOFTMAX_INL_H_
#undef TESSERA_KERNELS_CPU_ATTENTION_SOFTMAX_INL_H_
#else
#define TESSERA_KERNELS_CPU_ATTENTION_SOFTMAX_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "hwy/highway.h"
#include "kernels/cpu/attention_panel-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

/// The greatest of `top` and the rows of a column.
HWY_INLINE Vector max_of_column(const float* column, int64_t width, Rows rows, Vector top) {
  // Four at a time: each waits for the one before it. With a NaN it does not matter which is the greatest.
  Vector tops[4] = {top, top, top, top};
  int64_t j = rows.begin;
  for (; j + 4 <= rows.end; j += 4)
    for (int i = 0; i < 4; ++i) tops[i] = hn::Max(tops[i], hn::Load(kFloats, column + (j + i) * width));
  for (; j < rows.end; ++j) tops[0] = hn::Max(tops[0], hn::Load(kFloats, column + j * width));
  return hn::Max(hn::Max(tops[0], tops[1]), hn::Max(tops[2], tops[3]));
}

/// Calls work(j) for the rows that vector v visits and that some query of it does not see.
template <class Work> HWY_INLINE void for_masked(const Block& b, int v, Work&& work) {
  const Rows rows = b.visited[v], all = b.seen_by_all(v);
  const int64_t far = std::clamp(all.begin, rows.begin, rows.end);
  for (int64_t j = rows.begin; j < far; ++j) work(j);
  for (int64_t j = std::max(far, all.end); j < rows.end; ++j) work(j);
}

/// One vector of columns of a block of scores becomes probabilities. Returns the factor for what was summed before.
HWY_INLINE Vector soften_column(const Block& b, int v, float* scores, float* max, float* sum) {
  const Vector lowest = hn::Set(kFloats, -std::numeric_limits<float>::infinity());
  const int64_t width = b.panel.width;
  const Rows rows = b.visited[v];
  float* column = scores + v * kLanes;
  for_masked(b, v, [&](int64_t j) HWY_ATTR {
    float* s = column + j * width;
    hn::Store(hn::IfThenElse(lanes_that_see(b, j, v), hn::Load(kFloats, s), lowest), kFloats, s);
  });
  // Online softmax: exponents are formed from the greatest score so far. When this block raises it, what earlier blocks
  // summed was formed from a smaller one and shrinks by e^(before − top).
  const Vector before = hn::Load(kFloats, max + v * kLanes), top = max_of_column(column, width, rows, before);
  // Of a query whose window begins behind this block nothing is summed: exponentials from −inf, and not its difference
  // from itself.
  const Vector from = hn::IfThenZeroElse(hn::Eq(top, lowest), top);
  Vector total = hn::Zero(kFloats);
  for (int64_t j = rows.begin; j < rows.end; ++j) {
    const Vector e = Exp(kFloats, hn::Sub(hn::Load(kFloats, column + j * width), from));
    total = hn::Add(total, e);
    hn::Store(e, kFloats, column + j * width);
  }
  // Before the first block nothing was summed, and `before` is −inf.
  const Vector factor = b.begins_span() ? hn::Zero(kFloats) : Exp(kFloats, hn::Sub(before, from));
  hn::Store(top, kFloats, max + v * kLanes);
  hn::Store(fused(factor, hn::Load(kFloats, sum + v * kLanes), total), kFloats, sum + v * kLanes);
  return factor;
}

HWY_INLINE void scale_column(float* column, int64_t rows, int64_t width, Vector factor) {
  for (int64_t j = 0; j < rows; ++j, column += width)
    hn::Store(hn::Mul(factor, hn::Load(kFloats, column)), kFloats, column);
}

/// sums = sums · factor + added
HWY_INLINE void rescale_column(float* sums, const float* added, int64_t rows, int64_t width, Vector factor) {
  for (int64_t j = 0; j < rows * width; j += width) {
    const Vector before = hn::Mul(factor, hn::Load(kFloats, sums + j));
    hn::Store(hn::Add(before, hn::Load(kFloats, added + j)), kFloats, sums + j);
  }
}

/// What queries have summed over a span becomes their output there: acc / sum and, in `sum`, lse = max + log sum. A
/// query that sees no key of it has 0 and −∞.
HWY_INLINE void finish_column(float* acc, int64_t rows, int64_t width, const float* max, float* sum) {
  const Vector total = hn::Load(kFloats, sum);
  const auto nothing = hn::Eq(total, hn::Zero(kFloats));
  // One division a query at the end, in place of one for each key.
  scale_column(acc, rows, width, hn::IfThenZeroElse(nothing, hn::Div(hn::Set(kFloats, 1), total)));
  const Vector lse = hn::Add(hn::Load(kFloats, max), Log(kFloats, total));
  hn::Store(hn::IfThenElse(nothing, hn::Set(kFloats, -std::numeric_limits<float>::infinity()), lse), kFloats, sum);
}

/// A vector of queries over some keys: their outputs, a column of them each, and the logs of their sums.
struct Finished {
  float *out, *lse;
};

/// total <- attention over the keys of both. With M = max(lse, lse'), w = e^(lse − M), w' = e^(lse' − M) and
/// i = 1 / (w + w'):  out = fma(w' · i, out', (w · i) · out),  lse = M + log(w + w'). What saw no key changes nothing.
HWY_INLINE void merge_column(const Finished& total, const Finished& part, int64_t rows, int64_t width) {
  const Vector lowest = hn::Set(kFloats, -std::numeric_limits<float>::infinity());
  const Vector mine = hn::Load(kFloats, total.lse), other = hn::Load(kFloats, part.lse);
  const auto keep = hn::Eq(other, lowest), take = hn::AndNot(keep, hn::Eq(mine, lowest));
  const Vector top = hn::Max(mine, other);
  const Vector w = Exp(kFloats, hn::Sub(mine, top)), v = Exp(kFloats, hn::Sub(other, top));
  const Vector sum = hn::Add(w, v), inverse = hn::Div(hn::Set(kFloats, 1), sum);
  const Vector a = hn::Mul(w, inverse), b = hn::Mul(v, inverse);
  for (int64_t j = 0; j < rows * width; j += width) {
    const Vector before = hn::Load(kFloats, total.out + j), added = hn::Load(kFloats, part.out + j);
    const Vector merged = fused(b, added, hn::Mul(a, before));
    hn::Store(hn::IfThenElse(keep, before, hn::IfThenElse(take, added, merged)), kFloats, total.out + j);
  }
  const Vector lse = hn::Add(top, Log(kFloats, sum));
  hn::Store(hn::IfThenElse(keep, mine, hn::IfThenElse(take, other, lse)), kFloats, total.lse);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
