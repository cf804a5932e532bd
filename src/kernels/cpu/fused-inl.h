// a · b + c in one rounding on every target. Highway's portable lanes multiply and add in two, so that the same sum
// would have other bits there. Included once per instruction set.

#if defined(TESSERA_CPU_FUSED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_FUSED_INL_H_
#undef TESSERA_CPU_FUSED_INL_H_
#else
#define TESSERA_CPU_FUSED_INL_H_
#endif

#include <cmath>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// a · b + c, rounded once.
template <class V> HWY_INLINE V fused(V a, V b, V c) {
#if HWY_NATIVE_FMA
  return hn::MulAdd(a, b, c);
#else
  for (size_t i = 0; i < hn::MaxLanes(hn::DFromV<V>()); ++i) c.raw[i] = std::fma(a.raw[i], b.raw[i], c.raw[i]);
  return c;
#endif
}

/// c − a · b, rounded once.
template <class V> HWY_INLINE V fused_minus(V a, V b, V c) {
#if HWY_NATIVE_FMA
  return hn::NegMulAdd(a, b, c);
#else
  return fused(hn::Neg(a), b, c);
#endif
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
