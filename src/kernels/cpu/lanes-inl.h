// Loops over a row in vectors, remainder included; widening loads; sums along a row; sigmoid. Included once per
// instruction set by each kernel file.
//
// A sum along a row has one order, whatever the width of a vector. Sixteen virtual lanes:
//
//   lane l      s_l = 0, then elements l, l + 16, l + 32, ... are added, each in one rounding (a product and its sum in
//               one: fma). Behind the row's end stand zeros.
//   at the end  s_l += s_(l + 8) for l < 8, then s_l += s_(l + 4) for l < 4, s_l += s_(l + 2), s_0 += s_1; the sum is
//               s_0 + 0, so that it is never −0.
//
// f32 sums have f32 lanes, f64 sums f64 lanes. An instruction set holds them in 16 / width vectors (Sixteen).

#if defined(TESSERA_CPU_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_LANES_INL_H_
#undef TESSERA_CPU_LANES_INL_H_
#else
#define TESSERA_CPU_LANES_INL_H_
#endif

#include <cstring>
#include <type_traits>

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
/// f16 in the lower half of each word, by integer shifts: exponent and fraction stand where f32 has them, with f16's
/// bias of 15 in place of 127, and 2^112 makes up for it (subnormals too).
HWY_INLINE FloatVec widen_f16(hn::Vec<hn::RebindToUnsigned<Floats>> bits) {
  const hn::RebindToUnsigned<Floats> d32;
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(d32, 0x7fffu)));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(d32, 0x8000u)));
  const auto finite = hn::Mul(hn::BitCast(kFloats, magnitude), hn::Set(kFloats, 0x1p112f));
  const auto special = hn::BitCast(kFloats, hn::Or(magnitude, hn::Set(d32, 0x7f800000u)));      // infinities and NaNs
  const auto is_special = hn::Ge(hn::BitCast(kFloats, magnitude), hn::Set(kFloats, 0x1p-96f));  // 31 << 23 read as f32
  return hn::Or(hn::IfThenElse(is_special, special, finite), hn::BitCast(kFloats, sign));
}
HWY_INLINE FloatVec load_wide(const Float16* p) {
  const hn::Rebind<uint16_t, Floats> d16;
  const hn::RebindToUnsigned<Floats> d32;
  return widen_f16(hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p))));
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

// Sums in f64 read as many floats at a time as there are doubles in a vector: half a vector of floats.
using Doubles = hn::ScalableTag<double>;
using Half = hn::Rebind<float, Doubles>;
using DoubleVec = hn::Vec<Doubles>;
constexpr Doubles kDoubles;
constexpr Half kHalf;

/// WholeVector and PartVector of sums in f64.
struct WholeHalf {
  HWY_INLINE hn::Vec<Half> load(const float* p) const { return hn::LoadU(kHalf, p); }
};
struct PartHalf {
  int64_t count;
  HWY_INLINE hn::Vec<Half> load(const float* p) const {
    float buffer[HWY_MAX_BYTES / sizeof(float)] = {};
    std::memcpy(buffer, p, count * sizeof(float));
    return hn::LoadU(kHalf, buffer);
  }
};
HWY_INLINE DoubleVec wide(hn::Vec<Half> v) { return hn::PromoteTo(kDoubles, v); }

/// Lane l and l + half of the lanes are added, until one is left.
template <class D> HWY_INLINE hn::TFromD<D> sum_of_halves(D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    return hn::GetLane(v);
  } else {
    const hn::Half<decltype(d)> half;
    return sum_of_halves(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

/// The number of one of the vectors that make up sixteen lanes.
template <int number> using Place = std::integral_constant<int, number>;

/// The sixteen lanes of a sum along a row, in the order on top of this file.
template <class D> class Sixteen {
  using V = hn::Vec<D>;
  using T = hn::TFromD<D>;
  static constexpr int kWidth = static_cast<int>(hn::MaxLanes(D()));
  static constexpr int kVectors = 16 / kWidth;
  static_assert(kWidth * kVectors == 16);

 public:
  HWY_INLINE Sixteen() {
    for (V& v : sums_) v = hn::Zero(D());
  }
  template <int number> HWY_INLINE void add(Place<number>, V x) { sums_[number] = hn::Add(sums_[number], x); }
  template <int number> HWY_INLINE void add_product(Place<number>, V a, V b) {
    sums_[number] = fused(a, b, sums_[number]);
  }
  HWY_INLINE T sum() const {
    V v[kVectors];
    for (int i = 0; i < kVectors; ++i) v[i] = sums_[i];
    // Lanes that are a vector or more apart, then those of the vector that is left.
    for (int half = kVectors / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) v[i] = hn::Add(v[i], v[i + half]);
    return sum_of_halves(D(), v[0]) + T{0};
  }

 private:
  V sums_[kVectors];
};
using FloatSums = Sixteen<Floats>;
using DoubleSums = Sixteen<Doubles>;

/// The steps of for_sixteens from element i on, for vectors `number` and following of sixteen lanes.
template <class D, class Whole, int number, class Body> HWY_INLINE void whole_sixteen(int64_t i, Body& body) {
  constexpr int kWidth = static_cast<int>(hn::MaxLanes(D()));
  body(i, Whole{}, Place<number>());
  if constexpr ((number + 1) * kWidth < 16) whole_sixteen<D, Whole, number + 1>(i + kWidth, body);
}
template <class D, class Part, int number, class Body>
HWY_INLINE void part_of_sixteen(int64_t i, int64_t n, Body& body) {
  constexpr int kWidth = static_cast<int>(hn::MaxLanes(D()));
  if (i >= n) return;
  body(i, Part{HWY_MIN(kWidth, n - i)}, Place<number>());
  if constexpr ((number + 1) * kWidth < 16) part_of_sixteen<D, Part, number + 1>(i + kWidth, n, body);
}

/// body(i, vector, place) for each vector of each sixteen elements < n, in their order: what it loads at i belongs to
/// the lanes at `place` of its sums.
template <class D, class Whole, class Part, class Body> HWY_INLINE void for_sixteens(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) whole_sixteen<D, Whole, 0>(i, body);
  part_of_sixteen<D, Part, 0>(i, n, body);
}
template <class Body> HWY_INLINE void for_float_lanes(int64_t n, Body&& body) {
  for_sixteens<Floats, WholeVector, PartVector>(n, body);
}
/// For sums in f64: `vector` loads half vectors of floats, which `wide` promotes.
template <class Body> HWY_INLINE void for_double_lanes(int64_t n, Body&& body) {
  for_sixteens<Doubles, WholeHalf, PartHalf>(n, body);
}

/// Σ x²
HWY_INLINE float sum_of_squares_of_row(const float* x, int64_t n) {
  FloatSums squares;
  for_float_lanes(n, [&](int64_t i, auto vector, auto place) HWY_ATTR {
    const auto v = vector.load(x + i);
    squares.add_product(place, v, v);
  });
  return squares.sum();
}

/// 1 / (1 + exp(-x))
HWY_INLINE FloatVec sigmoid_lanes(FloatVec x) {
  const auto one = hn::Set(kFloats, 1.0f);
  return hn::Div(one, hn::Add(one, Exp(kFloats, hn::Neg(x))));
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
