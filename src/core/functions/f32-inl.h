// exp, log and tanh in f32, over an arithmetic A (core/functions/scalar.h shows what one offers).
//
// This file stands inside a namespace of whoever includes it: functions.h once for plain loops, and the CPU's kernels
// once for each instruction set. docs/functions.md is the same definition in prose, with the hash of a sweep.
//
// No step depends on flush-to-zero: subnormal operands are read as integers, and no subnormal result is formed by
// arithmetic. A NaN that comes out is always the quiet one with a positive sign and no payload.

/// kTable[0] + x (kTable[1] + x (kTable[2] + ...)), by fused multiply-adds from the highest power down.
template <class A, const auto& kTable, size_t kIndex = 0>
[[gnu::always_inline]] inline constexpr typename A::Float horner(typename A::Float x) {
  constexpr auto kNumber = kTable[kIndex];
  if constexpr (kIndex + 1 == kTable.size())
    return A::set(kNumber);
  else
    return A::fma(horner<A, kTable, kIndex + 1>(x), x, A::set(kNumber));
}

/// x = n ln 2 + r with n the whole number next to x / ln 2 and r about within ± ln 2 / 2. Adding 1.5 · 2^23 to a small
/// number rounds it to whole ones and leaves it in the low bits of the sum, `shifted`.
template <class A> struct ExpF32Parts {
  typename A::Float shifted, n, exact, r;  // exact = x − n · (first part of ln 2), in which nothing is rounded
  typename A::Float head, lost;            // 1 + r, and what its rounding lost
};
template <class A> [[gnu::always_inline]] inline constexpr ExpF32Parts<A> exp_f32_parts(typename A::Float x) {
  const auto shift = A::set(0x1.8p23f), one = A::set(1.0f);
  const auto shifted = A::fma(x, A::set(kInverseLn2F32[0]), shift);
  const auto n = A::sub(shifted, shift);
  const auto exact = A::negative_fma(n, A::set(kLn2F32[0]), x);
  const auto r = A::negative_fma(n, A::set(kLn2F32[1]), exact);
  const auto head = A::add(one, r);
  return {shifted, n, exact, r, head, A::sub(r, A::sub(head, one))};
}

/// y · 2^n by way of the exponent field, n from `shifted` above.
template <class A>
[[gnu::always_inline]] inline constexpr typename A::Float times_power_f32(typename A::Float y,
                                                                          typename A::Float shifted) {
  return A::from_bits(A::add_bits(A::bits(y), A::template shift_left<23>(A::bits(shifted))));
}

/// e^x within 0.8 ulp. Above kExpF32Range[1] (88.72) it is infinity, below kExpF32Range[0] (-87.34), where e^x leaves
/// the normal numbers, zero.
template <class A> [[gnu::always_inline]] inline constexpr typename A::Float exp_f32(typename A::Float x) {
  const auto [shifted, n, exact, r, head, lost] = exp_f32_parts<A>(x);
  // e^r = 1 + r + r² q, where only the last addition is rounded at the size of the result. It is 0.70 .. 1.42, so that
  // neither end of the range leaves the exponent field.
  const auto p = A::add(head, A::fma(A::mul(r, r), horner<A, kExpF32>(r), lost));
  const auto y = times_power_f32<A>(p, shifted);
  const auto above = A::zero_where(A::less(x, A::set(kExpF32Range[0])), y);
  const auto finite = A::select(A::less(A::set(kExpF32Range[1]), x), A::set(kInfinityF32), above);
  return A::select(A::equal(x, x), finite, A::set(kNanF32));
}

/// log x within 0.83 ulp. log 0 = -infinity for both zeros, NaN below.
template <class A> [[gnu::always_inline]] inline constexpr typename A::Float log_f32(typename A::Float x) {
  const auto bits = A::bits(x), infinity = A::set_bits(0x7f800000u), zero = A::set_bits(0);
  // A subnormal is read as a whole number of 2^-149: as the low bits of a number of size 2^23. Negative numbers pass
  // here too; they are answered at the end.
  const auto is_small = A::less_bits(bits, A::set_bits(0x00800000u));
  const auto whole = A::sub(A::from_bits(A::or_bits(bits, A::set_bits(0x4b000000u))), A::set(0x1p23f));
  const auto normal = A::bits(A::select(is_small, whole, x));
  // x = 2^e (1 + f), 1 + f in [sqrt 1/2, sqrt 2): counting begins at the bits of sqrt 1/2.
  const auto exponent = A::template shift_right<23>(A::sub_bits(normal, A::set_bits(0x3f3504f3u)));
  const auto mantissa = A::from_bits(A::sub_bits(normal, A::template shift_left<23>(exponent)));
  const auto f = A::sub(mantissa, A::set(1.0f));  // exact
  const auto whole_e = A::sub(A::from_bits(A::add_bits(exponent, A::set_bits(0x4b400000u))), A::set(0x1.8p23f));
  const auto e = A::add(whole_e, A::select(is_small, A::set(-149.0f), A::set(0.0f)));
  // e ln 2 + f and what its rounding lost, which joins f² (-1/2 + f P): the result is rounded once at its own size.
  const auto high = A::mul(e, A::set(kLn2F32[0]));  // exact
  const auto sum = A::add(high, f), lost = A::sub(f, A::sub(sum, high));
  const auto rest = A::fma(e, A::set(kLn2F32[1]), lost);
  const auto curve = A::fma(f, horner<A, kLogF32>(f), A::set(-0.5f));
  const auto y = A::add(sum, A::fma(A::mul(f, f), curve, rest));
  const auto finite = A::select(A::equal_bits(bits, infinity), x, y);
  const auto positive = A::select(A::less_bits(infinity, bits), A::set(kNanF32), finite);
  const auto defined = A::select(A::less_bits(bits, zero), A::set(kNanF32), positive);
  const auto is_zero = A::equal_bits(A::template shift_left<1>(bits), zero);
  return A::select(is_zero, A::set(-kInfinityF32), defined);
}

/// tanh a for a in 0.5 .. 10: 1 − 2 / (e^2a + 1), where e^2a, the sum and the quotient each carry their rounding error
/// along, so that the last subtraction is the only rounding that counts.
template <class A> [[gnu::always_inline]] inline constexpr typename A::Float tanh_f32_far(typename A::Float a) {
  const auto one = A::set(1.0f);
  const auto [shifted, n, exact, r, head, lost] = exp_f32_parts<A>(A::add(a, a));
  const auto lost_r = A::negative_fma(n, A::set(kLn2F32[1]), A::sub(exact, r));
  const auto tail = A::add(lost, A::fma(A::mul(r, r), horner<A, kExpF32>(r), lost_r));
  const auto high = A::add(head, tail), low = A::sub(tail, A::sub(high, head));
  const auto power = times_power_f32<A>(one, shifted);  // 2^n
  const auto big = A::mul(high, power);                 // exact
  const auto d = A::add(big, one);
  const auto lost_d = A::fma(low, power, A::sub(one, A::sub(d, big)));
  const auto q = A::div(A::set(2.0f), d);
  const auto left = A::negative_fma(q, lost_d, A::negative_fma(q, d, A::set(2.0f)));  // 2 − q (d + lost_d)
  const auto y = A::sub(one, q), lost_y = A::sub(A::sub(one, y), q);
  return A::add(y, A::negative_fma(A::mul(q, A::set(0.5f)), left, lost_y));  // left / d = left · q / 2
}

/// tanh x within 0.71 ulp; tanh(-x) = -tanh x, zeros and subnormals are their own.
template <class A> [[gnu::always_inline]] inline constexpr typename A::Float tanh_f32(typename A::Float x) {
  const auto bits = A::bits(x), magnitude = A::and_bits(bits, A::set_bits(0x7fffffffu));
  const auto a = A::from_bits(magnitude), z = A::mul(a, a);
  const auto near = A::fma(A::mul(a, z), horner<A, kTanhF32>(z), a);
  // From 9.02 on it is 1.
  const auto far = tanh_f32_far<A>(A::select(A::less(a, A::set(10.0f)), a, A::set(10.0f)));
  const auto y = A::bits(A::select(A::less(a, A::set(0x1.1p-1f)), near, far));
  const auto sign = A::and_bits(bits, A::set_bits(0x80000000u));
  const auto signed_y = A::from_bits(A::or_bits(y, sign));
  // x^3 / 3 is less than a tenth of an ulp of x.
  const auto finite = A::select(A::less(a, A::set(0x1p-13f)), x, signed_y);
  return A::select(A::less_bits(A::set_bits(0x7f800000u), magnitude), A::set(kNanF32), finite);
}
