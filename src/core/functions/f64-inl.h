// exp, log, log2, pow, sin and cos in f64, over an arithmetic A. Stands inside a namespace, behind f32-inl.h, whose
// remarks hold here too.
//
// Where one rounding would show, a number is an unevaluated sum hi + lo of two (Dekker 1971; Shewchuk 1997): products
// by fma, sums with the rounding error taken along.

template <class A> struct SumF64 { typename A::Float hi, lo; };

/// a + b and its rounding error, exactly, for |a| >= |b| or a = 0.
template <class A>
[[gnu::always_inline]] inline constexpr SumF64<A> fast_sum(typename A::Float a, typename A::Float b) {
  const auto sum = A::add(a, b);
  return {sum, A::sub(b, A::sub(sum, a))};
}

/// The same for any two numbers (Knuth).
template <class A>
[[gnu::always_inline]] inline constexpr SumF64<A> exact_sum(typename A::Float a, typename A::Float b) {
  const auto sum = A::add(a, b), b_in_sum = A::sub(sum, a);
  return {sum, A::add(A::sub(a, A::sub(sum, b_in_sum)), A::sub(b, b_in_sum))};
}

/// a · b to about 2^-103.
template <class A> [[gnu::always_inline]] inline constexpr SumF64<A> product(SumF64<A> a, SumF64<A> b) {
  const auto high = A::mul(a.hi, b.hi), rounding = A::fma(a.hi, b.hi, A::neg(high));
  return {high, A::fma(a.hi, b.lo, A::fma(a.lo, b.hi, rounding))};
}

/// a + b to about 2^-103, for |a| >= |b| or a = 0.
template <class A> [[gnu::always_inline]] inline constexpr SumF64<A> sum(SumF64<A> a, SumF64<A> b) {
  const auto s = fast_sum<A>(a.hi, b.hi);
  return fast_sum<A>(s.hi, A::add(s.lo, A::add(a.lo, b.lo)));
}

template <class A> [[gnu::always_inline]] inline constexpr SumF64<A> set_sum(double hi, double lo) {
  return {A::set(hi), A::set(lo)};
}

/// e^(x.hi + x.lo), |x.lo| at most half an ulp of x.hi, within 0.6 ulp of what the sum asks for. Results from 2^1024
/// on are infinity, those below 2^-1022 zero.
template <class A> [[gnu::always_inline]] inline constexpr typename A::Float exp_f64_of_sum(SumF64<A> x) {
  const auto shift = A::set(0x1.8p52), one = A::set(1.0);
  const auto shifted = A::fma(x.hi, A::set(kInverseLn2F64[0]), shift), n = A::sub(shifted, shift);
  // x = n ln 2 + r: the first two products with n are exact, and so is the first subtraction.
  const auto first = A::negative_fma(n, A::set(kLn2F64[0]), x.hi);
  const auto second = exact_sum<A>(first, A::mul(n, A::set(-kLn2F64[1])));
  const auto low = A::add(A::negative_fma(n, A::set(kLn2F64[2]), x.lo), second.lo);
  const auto r = exact_sum<A>(second.hi, low);
  // e^r = 1 + r + r² q, and r.lo beside it changes the sum by r.lo (1 + r).
  const auto head = fast_sum<A>(one, r.hi);
  const auto tail = A::add(head.lo, A::fma(r.lo, r.hi, r.lo));
  const auto p = A::add(head.hi, A::fma(A::mul(r.hi, r.hi), horner<A, kExpF64>(r.hi), tail));
  const auto y = A::add_bits(A::bits(p), A::template shift_left<52>(A::bits(shifted)));
  // The exponent field says by itself when it was left, unless n is out of all bounds.
  const auto infinity = A::set(kInfinityF64);
  const auto is_tiny = A::less_bits(y, A::set_bits(0x0010000000000000u));
  const auto is_huge = A::less_bits(A::set_bits(0x7fefffffffffffffu), y);
  const auto near = A::select(is_huge, infinity, A::zero_where(is_tiny, A::from_bits(y)));
  const auto above = A::zero_where(A::less(x.hi, A::set(-709.0)), near);
  const auto finite = A::select(A::less(A::set(710.0), x.hi), infinity, above);
  return A::select(A::equal(x.hi, x.hi), finite, A::set(kNanF64));
}

/// e^x within 0.6 ulp.
template <class A> [[gnu::always_inline]] inline constexpr typename A::Float exp_f64(typename A::Float x) {
  return exp_f64_of_sum<A>({x, A::set(0.0)});
}

/// x = 2^e · m, with log m to about 2^-68 of itself, for 0 < x < infinity.
template <class A> struct LogF64Parts {
  typename A::Float e;
  SumF64<A> log_m;  // m in [sqrt 1/2, sqrt 2)
};
template <class A> [[gnu::always_inline]] inline constexpr LogF64Parts<A> log_f64_parts(typename A::Float x) {
  const auto bits = A::bits(x), magic = A::set_bits(0x4338000000000000u);
  // As in f32: a subnormal is a whole number of 2^-1074.
  const auto is_small = A::less_bits(bits, A::set_bits(0x0010000000000000u));
  const auto whole = A::sub(A::from_bits(A::or_bits(bits, A::set_bits(0x4330000000000000u))), A::set(0x1p52));
  const auto normal = A::bits(A::select(is_small, whole, x));
  const auto exponent = A::template shift_right<52>(A::sub_bits(normal, A::set_bits(0x3fe6a09e667f3bcdu)));
  const auto m = A::from_bits(A::sub_bits(normal, A::template shift_left<52>(exponent)));
  const auto whole_e = A::sub(A::from_bits(A::add_bits(exponent, magic)), A::set(0x1.8p52));
  const auto e = A::add(whole_e, A::select(is_small, A::set(-1074.0), A::set(0.0)));
  // log m = 2 atanh s, s = f / (2 + f), f = m − 1 (exact): 2 s (1 + z (1/3 + z (1/5 + z t))), z = s².
  const auto f = A::sub(m, A::set(1.0));
  const auto d = fast_sum<A>(A::set(2.0), f);
  const auto s_hi = A::div(f, d.hi);
  const auto left = A::negative_fma(s_hi, d.lo, A::negative_fma(s_hi, d.hi, f));  // f − s_hi (2 + f)
  const SumF64<A> s{s_hi, A::div(left, d.hi)}, z = product<A>(s, s);
  const SumF64<A> t{horner<A, kLogF64>(z.hi), A::set(0.0)};
  const auto fifth = sum<A>(set_sum<A>(kFifthF64[0], kFifthF64[1]), product<A>(z, t));
  const auto third = sum<A>(set_sum<A>(kThirdF64[0], kThirdF64[1]), product<A>(z, fifth));
  const SumF64<A> twice{A::add(s.hi, s.hi), A::add(s.lo, s.lo)};
  return {e, sum<A>(twice, product<A>(twice, product<A>(z, third)))};
}

/// log x as a sum, for 0 < x < infinity.
template <class A> [[gnu::always_inline]] inline constexpr SumF64<A> log_f64_sum(typename A::Float x) {
  const auto [e, log_m] = log_f64_parts<A>(x);
  return sum<A>({A::mul(e, A::set(kLn2F64[0])), A::mul(e, A::set(kLn2F64[1]))}, log_m);  // exact products
}

/// What a logarithm is outside of 0 < x < infinity: -infinity at both zeros, NaN below, infinity at infinity.
template <class A>
[[gnu::always_inline]] inline constexpr typename A::Float log_f64_ends(typename A::Float x, typename A::Float y) {
  const auto bits = A::bits(x), infinity = A::set_bits(0x7ff0000000000000u), zero = A::set_bits(0);
  const auto finite = A::select(A::equal_bits(bits, infinity), x, y);
  const auto positive = A::select(A::less_bits(infinity, bits), A::set(kNanF64), finite);
  const auto defined = A::select(A::less_bits(bits, zero), A::set(kNanF64), positive);
  return A::select(A::equal_bits(A::template shift_left<1>(bits), zero), A::set(-kInfinityF64), defined);
}

/// log x within 0.51 ulp.
template <class A> [[gnu::always_inline]] inline constexpr typename A::Float log_f64(typename A::Float x) {
  return log_f64_ends<A>(x, log_f64_sum<A>(x).hi);
}

/// log2 x within 0.51 ulp; of a power of two exact.
template <class A> [[gnu::always_inline]] inline constexpr typename A::Float log2_f64(typename A::Float x) {
  const auto [e, log_m] = log_f64_parts<A>(x);
  const auto log2_m = product<A>(log_m, set_sum<A>(kInverseLn2F64[0], kInverseLn2F64[1]));
  return log_f64_ends<A>(x, sum<A>({e, A::set(0.0)}, log2_m).hi);
}

/// x^y for x >= 0 within 0.6 ulp; results from 2^1024 on are infinity, those below 2^-1022 zero.
/// x^0 = 1^y = 1, whatever the other is. Else NaN if one of them is, or if x < 0, whole y included. Both zeros to
/// a positive power are +0, to a negative one infinity.
template <class A>
[[gnu::always_inline]] inline constexpr typename A::Float pow_f64(typename A::Float x, typename A::Float y) {
  const auto zero = A::set(0.0), one = A::set(1.0), infinity = A::set(kInfinityF64), nan = A::set(kNanF64);
  const auto log_x = log_f64_sum<A>(x);
  const auto high = A::mul(y, log_x.hi), rounding = A::fma(y, log_x.hi, A::neg(high));
  const auto inside = exp_f64_of_sum<A>({high, A::fma(y, log_x.lo, rounding)});
  const auto bits = A::bits(x), no_bits = A::set_bits(0);
  const auto is_positive = A::less(zero, y);
  const auto of_zero = A::select(is_positive, zero, infinity), of_infinity = A::select(is_positive, infinity, zero);
  const auto above = A::select(A::equal(x, infinity), of_infinity, inside);
  const auto defined = A::select(A::less_bits(bits, no_bits), nan, above);
  const auto is_zero = A::equal_bits(A::template shift_left<1>(bits), no_bits);
  const auto any = A::select(is_zero, of_zero, defined);
  const auto numbers = A::select(A::equal(x, x), A::select(A::equal(y, y), any, nan), nan);
  const auto is_no_power = A::equal_bits(A::template shift_left<1>(A::bits(y)), no_bits);
  return A::select(A::equal(x, one), one, A::select(is_no_power, one, numbers));
}

template <class A> struct SinCosF64 { typename A::Float sin, cos; };

/// sin r and cos r for |r| <= pi / 4, r.lo at most half an ulp of r.hi.
template <class A> [[gnu::always_inline]] inline constexpr SinCosF64<A> sin_cos_f64_near(SumF64<A> r) {
  const auto one = A::set(1.0), half = A::set(0.5);
  const auto z = A::mul(r.hi, r.hi);
  // sin: r + r³ S(z) + r.lo cos r, with 1 − z / 2 for the cosine.
  const auto low = A::negative_fma(A::mul(z, half), r.lo, r.lo);
  const auto sin = A::add(r.hi, A::fma(A::mul(r.hi, z), horner<A, kSinF64>(z), low));
  // cos: 1 − r² / 2 + z² C(z) − r.hi r.lo. 1 − z / 2 is rounded; what it and z lost is added with the rest.
  const auto z_rest = A::fma(r.hi, r.hi, A::neg(z)), half_z = A::mul(z, half);
  const auto head = A::sub(one, half_z), lost = A::sub(A::sub(one, head), half_z);
  const auto rest = A::negative_fma(r.hi, r.lo, A::negative_fma(z_rest, half, lost));
  const auto cos = A::add(head, A::fma(A::mul(z, z), horner<A, kCosF64>(z), rest));
  return {sin, cos};
}

/// -y where `turn` is 2, y where it is 0.
template <class A>
[[gnu::always_inline]] inline constexpr typename A::Float turned(typename A::Float y, typename A::Bits turn) {
  return A::from_bits(A::xor_bits(A::bits(y), A::template shift_left<62>(turn)));
}

/// sin x and cos x within 0.75 ulp for |x| <= 2^40. Beyond it, where few bits of an angle are left, both are NaN.
template <class A> [[gnu::always_inline]] inline constexpr SinCosF64<A> sin_cos_f64(typename A::Float x) {
  const auto shift = A::set(0x1.8p52);
  const auto shifted = A::fma(x, A::set(kInverseHalfPiF64[0]), shift), n = A::sub(shifted, shift);
  // x = n pi / 2 + r (Cody and Waite). The first difference is exact: it is a multiple of 2^-52 and below 1. The second
  // is carried as a sum, since it may cancel; of the third part the leading digits are enough.
  const auto first = A::negative_fma(n, A::set(kHalfPiF64[0]), x);
  const auto part = A::mul(n, A::set(kHalfPiF64[1]));
  const auto lost_part = A::fma(n, A::set(kHalfPiF64[1]), A::neg(part));
  const auto second = exact_sum<A>(first, A::neg(part));
  const auto low = A::negative_fma(n, A::set(kHalfPiF64[2]), A::sub(second.lo, lost_part));
  const auto [sin, cos] = sin_cos_f64_near<A>(fast_sum<A>(second.hi, low));
  // A quarter turn swaps the two, and quarters 2 and 3 turn the sine's sign, 1 and 2 the cosine's.
  const auto quarter = A::bits(shifted), two = A::set_bits(2), next = A::add_bits(quarter, A::set_bits(1));
  const auto is_even = A::equal_bits(A::and_bits(quarter, A::set_bits(1)), A::set_bits(0));
  const auto any_sin = turned<A>(A::select(is_even, sin, cos), A::and_bits(quarter, two));
  const auto any_cos = turned<A>(A::select(is_even, cos, sin), A::and_bits(next, two));
  // Below 2^-27 the sine is its argument: x^3 / 6 is less than a hundredth of its ulp.
  const auto magnitude = A::from_bits(A::and_bits(A::bits(x), A::set_bits(0x7fffffffffffffffu)));
  const auto defined_sin = A::select(A::less(magnitude, A::set(0x1p-27)), x, any_sin);
  const auto is_far = A::less(A::set(0x1p40), magnitude);
  const auto is_number = A::equal(x, x);
  const auto nan = A::set(kNanF64);
  return {A::select(is_number, A::select(is_far, nan, defined_sin), nan),
          A::select(is_number, A::select(is_far, nan, any_cos), nan)};
}
