#pragma once
// One number at a time: the arithmetic that core/functions is written over, for plain loops.
//
// A function is a template over such a type. Lanes of an instruction set (kernels/cpu/functions-inl.h) or a thread of a
// device bring their own, and bits are the same because every operation is exact or rounded once, to nearest even.
// This file wants -ffp-contract=off: a compiler that fuses what is written as two operations changes bits.

#include <bit>
#include <cstdint>
#include <type_traits>

#ifdef __FAST_MATH__
#error "core/functions needs IEEE arithmetic: compile without -ffast-math"
#endif

namespace tessera::functions {

/// T is float or double. Operations on Bits wrap around; `less_bits` compares as signed numbers.
template <class T> struct Scalar {
  using Float = T;
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  using Mask = bool;

  [[gnu::always_inline]] static constexpr T set(T x) { return x; }
  [[gnu::always_inline]] static constexpr Bits set_bits(Bits x) { return x; }
  [[gnu::always_inline]] static constexpr Bits bits(T x) { return std::bit_cast<Bits>(x); }
  [[gnu::always_inline]] static constexpr T from_bits(Bits x) { return std::bit_cast<T>(x); }

  [[gnu::always_inline]] static constexpr T add(T a, T b) { return a + b; }
  [[gnu::always_inline]] static constexpr T sub(T a, T b) { return a - b; }
  [[gnu::always_inline]] static constexpr T mul(T a, T b) { return a * b; }
  [[gnu::always_inline]] static constexpr T div(T a, T b) { return a / b; }
  [[gnu::always_inline]] static constexpr T neg(T a) { return -a; }
  /// a · b + c, rounded once. The builtin is the instruction where the compiler may use it, else the C library's fma.
  [[gnu::always_inline]] static constexpr T fma(T a, T b, T c) {
    if constexpr (sizeof(T) == 4)
      return __builtin_fmaf(a, b, c);
    else
      return __builtin_fma(a, b, c);
  }
  /// c − a · b, rounded once.
  [[gnu::always_inline]] static constexpr T negative_fma(T a, T b, T c) { return fma(-a, b, c); }

  [[gnu::always_inline]] static constexpr Bits add_bits(Bits a, Bits b) { return a + b; }
  [[gnu::always_inline]] static constexpr Bits sub_bits(Bits a, Bits b) { return a - b; }
  [[gnu::always_inline]] static constexpr Bits and_bits(Bits a, Bits b) { return a & b; }
  [[gnu::always_inline]] static constexpr Bits or_bits(Bits a, Bits b) { return a | b; }
  [[gnu::always_inline]] static constexpr Bits xor_bits(Bits a, Bits b) { return a ^ b; }
  template <int kCount> [[gnu::always_inline]] static constexpr Bits shift_left(Bits a) { return a << kCount; }
  /// Copies of the sign come in from the left.
  template <int kCount> [[gnu::always_inline]] static constexpr Bits shift_right(Bits a) {
    return static_cast<Bits>(static_cast<std::make_signed_t<Bits>>(a) >> kCount);
  }

  [[gnu::always_inline]] static constexpr Mask less(T a, T b) { return a < b; }
  [[gnu::always_inline]] static constexpr Mask equal(T a, T b) { return a == b; }
  [[gnu::always_inline]] static constexpr Mask equal_bits(Bits a, Bits b) { return a == b; }
  [[gnu::always_inline]] static constexpr Mask less_bits(Bits a, Bits b) {
    return static_cast<std::make_signed_t<Bits>>(a) < static_cast<std::make_signed_t<Bits>>(b);
  }
  [[gnu::always_inline]] static constexpr T select(Mask mask, T yes, T no) { return mask ? yes : no; }
  [[gnu::always_inline]] static constexpr T zero_where(Mask mask, T x) { return mask ? T{0} : x; }
};

}  // namespace tessera::functions
