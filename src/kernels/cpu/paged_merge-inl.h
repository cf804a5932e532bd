// Outputs over some keys and over others become the output over all of them, row by row (docs/determinism.md,
// "Attention"). Factors are formed for many queries at a time, a query a lane.
//
// Included once per SIMD target, behind tile-inl.h.
#if defined(TESSERA_KERNELS_CPU_PAGED_MERGE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_PAGED_MERGE_INL_H_
#undef TESSERA_KERNELS_CPU_PAGED_MERGE_INL_H_
#else
#define TESSERA_KERNELS_CPU_PAGED_MERGE_INL_H_
#endif

#include <limits>

#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

constexpr float kUnseen = -std::numeric_limits<float>::infinity();

/// With M = max(lse, lse'), w = e^(lse − M), w' = e^(lse' − M), i = 1 / (w + w'): kept = w · i, taken = w' · i, and lse
/// of both, M + log(w + w'). A side that saw nothing leaves the other's lse as it is.
HWY_INLINE void merge_factors(const float* lse, const float* other, int64_t count, float* kept, float* taken,
                              float* both) {
  const Vector lowest = hn::Set(kFloats, kUnseen);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    const Vector x = load_some(lse + i, left), y = load_some(other + i, left), top = hn::Max(x, y);
    const Vector w = Exp(kFloats, hn::Sub(x, top)), v = Exp(kFloats, hn::Sub(y, top));
    const Vector sum = hn::Add(w, v), inverse = hn::Div(hn::Set(kFloats, 1), sum);
    store_some(hn::Mul(w, inverse), kept + i, left);
    store_some(hn::Mul(v, inverse), taken + i, left);
    const Vector merged = hn::Add(top, Log(kFloats, sum));
    store_some(hn::IfThenElse(hn::Eq(y, lowest), x, hn::IfThenElse(hn::Eq(x, lowest), y, merged)), both + i, left);
  }
}

/// to = factor · from
HWY_INLINE void scale_row(const float* from, int64_t count, float factor, float* to) {
  for (int64_t i = 0; i < count; i += kLanes)
    store_some(hn::Mul(hn::Set(kFloats, factor), load_some(from + i, count - i)), to + i, count - i);
}

/// to = fma(taken, factor · from, kept · to)
HWY_INLINE void merge_row(const float* from, int64_t count, float factor, float kept, float taken, float* to) {
  const Vector f = hn::Set(kFloats, factor), a = hn::Set(kFloats, kept), b = hn::Set(kFloats, taken);
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vector other = hn::Mul(f, load_some(from + i, count - i));
    store_some(fused(b, other, hn::Mul(a, load_some(to + i, count - i))), to + i, count - i);
  }
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
