// The largest value of a row of logits: the first step of every softmax over chunks. Included once per instruction set,
// behind cpu/lanes-inl.h.

#if defined(TESSERA_CPU_ROW_MAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_ROW_MAX_INL_H_
#undef TESSERA_CPU_ROW_MAX_INL_H_
#else
#define TESSERA_CPU_ROW_MAX_INL_H_
#endif

#include <limits>

#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// The largest of n values, never −0; a NaN is passed over (it shows in the sum of exponentials).
inline float max_of_row(const float* x, int64_t n) {
  auto max = hn::Set(kFloats, kMinusInfinity);
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    const auto v = vector.load(x + i, kMinusInfinity);
    max = hn::IfThenElse(hn::Gt(v, max), v, max);
  });
  // Which of two zeros of unlike sign is met first depends on the width: both become +0.
  return hn::GetLane(hn::MaxOfLanes(kFloats, max)) + 0.0f;
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
