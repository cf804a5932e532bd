// Loops over a row in vectors, remainder included; widening loads; sigmoid. Included once per instruction set by each
// kernel file.

#if defined(TESSERA_CPU_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_LANES_INL_H_
#undef TESSERA_CPU_LANES_INL_H_
#else
#define TESSERA_CPU_LANES_INL_H_
#endif

#include <cstring>

#include "core/tensor.h"
#include "hwy/highway.h"
#include "kernels/cpu/functions-inl.h"
#include "kernels/cpu/fused-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
// As many lanes as the instruction set has: 4, 8 or 16 on x86.
using Floats = hn::ScalableTag<float>;
using FloatVec = hn::Vec<Floats>;
constexpr Floats kFloats;

/// Unaligned loads that widen to f32, exactly.
HWY_INLINE FloatVec load_wide(const float* p) { return hn::LoadU(kFloats, p); }
HWY_INLINE FloatVec load_wide(const BFloat16* p) {
  const hn::Rebind<uint16_t, Floats> d16;
  const hn::RebindToUnsigned<Floats> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(kFloats, hn::ShiftLeft<16>(bits));
}
/// f16 by integer shifts: exponent and fraction move into place, the multiplication re-biases (subnormals too).
HWY_INLINE FloatVec load_wide(const Float16* p) {
  const hn::Rebind<uint16_t, Floats> d16;
  const hn::RebindToUnsigned<Floats> d32;
  const auto bits = hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  // Exponent and fraction stand where f32 has them, with f16's bias of 15 in place of 127: 2^112 makes up for it.
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(d32, 0x7fffu)));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000u)));
  const auto finite = hn::Mul(hn::BitCast(kFloats, magnitude), hn::Set(kFloats, 0x1p112f));
  const auto special = hn::BitCast(kFloats, hn::Or(magnitude, hn::Set(d32, 0x7f800000u)));      // infinities and NaNs
  const auto is_special = hn::Ge(hn::BitCast(kFloats, magnitude), hn::Set(kFloats, 0x1p-96f));  // 31 << 23 read as f32
  return hn::Or(hn::IfThenElse(is_special, special, finite), hn::BitCast(kFloats, sign));
}

/// How a loop body reads and writes one vector: all lanes...
struct WholeVector {
  template <class W> HWY_INLINE FloatVec load(const W* p) const { return load_wide(p); }
  HWY_INLINE FloatVec load(const float* p, float) const { return load_wide(p); }
  HWY_INLINE void store(FloatVec v, float* p) const { hn::StoreU(v, kFloats, p); }
};

/// ... or the first `count` of them, through a buffer: memory behind the end is neither read nor written.
struct PartVector {
  int64_t count;
  template <class W> HWY_INLINE FloatVec load(const W* p) const {
    W buffer[HWY_MAX_BYTES / sizeof(float)] = {};
    std::memcpy(buffer, p, count * sizeof(W));
    return load_wide(buffer);
  }
  /// Lanes behind the end hold `padding`.
  HWY_INLINE FloatVec load(const float* p, float padding) const {
    const auto inside = hn::FirstN(kFloats, static_cast<size_t>(count));
    return hn::IfThenElse(inside, load(p), hn::Set(kFloats, padding));
  }
  HWY_INLINE void store(FloatVec v, float* p) const {
    float buffer[HWY_MAX_BYTES / sizeof(float)];
    hn::StoreU(v, kFloats, buffer);
    std::memcpy(p, buffer, count * sizeof(float));
  }
};

/// body(i, vector) for i = 0, lanes, 2 lanes, ... < n. The body loads and stores through `vector`.
template <class Body> HWY_INLINE void for_vectors(int64_t n, Body&& body) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kFloats));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, WholeVector{});
  if (i < n) body(i, PartVector{n - i});
}

/// By Highway's tree: one order for a width, which is why bits depend on the kind of CPU and not on the machine.
HWY_INLINE float sum_of_lanes(FloatVec v) { return hn::GetLane(hn::SumOfLanes(kFloats, v)); }

/// 1 / (1 + exp(-x))
HWY_INLINE FloatVec sigmoid_lanes(FloatVec x) {
  const auto one = hn::Set(kFloats, 1.0f);
  return hn::Div(one, hn::Add(one, Exp(kFloats, hn::Neg(x))));
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
