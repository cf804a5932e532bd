// Exp, Log and Tanh of vectors of f32, from the definition that plain loops have too (core/functions): an element has
// the same bits in a lane, in any instruction set. Included once per instruction set by each kernel file.

#if defined(TESSERA_CPU_FUNCTIONS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_CPU_FUNCTIONS_INL_H_
#undef TESSERA_CPU_FUNCTIONS_INL_H_
#else
#define TESSERA_CPU_FUNCTIONS_INL_H_
#endif

#include "core/functions/functions.h"
#include "hwy/highway.h"
#include "kernels/cpu/fused-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace lanes {

using namespace tessera::functions;  // NOLINT: the coefficients

/// What core/functions/scalar.h is for one number, for the vectors of a tag D of f32 (or f64).
template <class D> struct Lanes {
  using Float = hn::Vec<D>;
  using Signed = hn::RebindToSigned<D>;
  using Bits = hn::Vec<Signed>;
  using Mask = hn::Mask<D>;

  static HWY_INLINE Float set(hn::TFromD<D> x) { return hn::Set(D(), x); }
  static HWY_INLINE Bits set_bits(hwy::MakeUnsigned<hn::TFromD<D>> x) {
    return hn::Set(Signed(), static_cast<hn::TFromD<Signed>>(x));
  }
  static HWY_INLINE Bits bits(Float x) { return hn::BitCast(Signed(), x); }
  static HWY_INLINE Float from_bits(Bits x) { return hn::BitCast(D(), x); }

  static HWY_INLINE Float add(Float a, Float b) { return hn::Add(a, b); }
  static HWY_INLINE Float sub(Float a, Float b) { return hn::Sub(a, b); }
  static HWY_INLINE Float mul(Float a, Float b) { return hn::Mul(a, b); }
  static HWY_INLINE Float div(Float a, Float b) { return hn::Div(a, b); }
  static HWY_INLINE Float neg(Float a) { return hn::Neg(a); }
  static HWY_INLINE Float fma(Float a, Float b, Float c) { return fused(a, b, c); }
  static HWY_INLINE Float negative_fma(Float a, Float b, Float c) { return fused_minus(a, b, c); }

  static HWY_INLINE Bits add_bits(Bits a, Bits b) { return hn::Add(a, b); }
  static HWY_INLINE Bits sub_bits(Bits a, Bits b) { return hn::Sub(a, b); }
  static HWY_INLINE Bits and_bits(Bits a, Bits b) { return hn::And(a, b); }
  static HWY_INLINE Bits or_bits(Bits a, Bits b) { return hn::Or(a, b); }
  static HWY_INLINE Bits xor_bits(Bits a, Bits b) { return hn::Xor(a, b); }
  template <int kCount> static HWY_INLINE Bits shift_left(Bits a) { return hn::ShiftLeft<kCount>(a); }
  template <int kCount> static HWY_INLINE Bits shift_right(Bits a) { return hn::ShiftRight<kCount>(a); }

  static HWY_INLINE Mask less(Float a, Float b) { return hn::Lt(a, b); }
  static HWY_INLINE Mask equal(Float a, Float b) { return hn::Eq(a, b); }
  static HWY_INLINE Mask equal_bits(Bits a, Bits b) { return hn::RebindMask(D(), hn::Eq(a, b)); }
  static HWY_INLINE Mask less_bits(Bits a, Bits b) { return hn::RebindMask(D(), hn::Lt(a, b)); }
  static HWY_INLINE Float select(Mask mask, Float yes, Float no) { return hn::IfThenElse(mask, yes, no); }
  static HWY_INLINE Float zero_where(Mask mask, Float x) { return hn::IfThenZeroElse(mask, x); }
};

#include "core/functions/f32-inl.h"
#include "core/functions/f64-inl.h"

}  // namespace lanes

/// functions::exp, log and tanh of core/functions/functions.h, element by element; D is a tag of f32.
template <class D> HWY_INLINE hn::Vec<D> Exp(D, hn::Vec<D> x) { return lanes::exp_f32<lanes::Lanes<D>>(x); }
template <class D> HWY_INLINE hn::Vec<D> Log(D, hn::Vec<D> x) { return lanes::log_f32<lanes::Lanes<D>>(x); }
template <class D> HWY_INLINE hn::Vec<D> Tanh(D, hn::Vec<D> x) { return lanes::tanh_f32<lanes::Lanes<D>>(x); }

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#endif
