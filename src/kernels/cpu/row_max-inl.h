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
  // Four at a time: each waits for the one before it.
  constexpr int kAtOnce = 4;
  constexpr auto kLanes = static_cast<int64_t>(hn::MaxLanes(kFloats));
  FloatVec tops[kAtOnce];
  for (FloatVec& top : tops) top = hn::Set(kFloats, kMinusInfinity);
  const auto greater = [](FloatVec v, FloatVec top) HWY_ATTR { return hn::IfThenElse(hn::Gt(v, top), v, top); };
  int64_t done = 0;
  for (; done + kAtOnce * kLanes <= n; done += kAtOnce * kLanes) {
#pragma GCC unroll 4
    for (int k = 0; k < kAtOnce; ++k) tops[k] = greater(load_wide(x + done + k * kLanes), tops[k]);
  }
  FloatVec max = greater(greater(tops[0], tops[1]), greater(tops[2], tops[3]));
  for_vectors(n - done,
              [&](int64_t i, auto vector) HWY_ATTR { max = greater(vector.load(x + done + i, kMinusInfinity), max); });
  // Which of two zeros of unlike sign is met first depends on the width: both become +0.
  return hn::GetLane(hn::MaxOfLanes(kFloats, max)) + 0.0f;
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
