#pragma once
// exp, log, tanh, sin, cos and pow with one definition: the same bits from a plain loop, from the lanes of every
// instruction set and from every C library. docs/functions.md defines them without this source.
//
// The std:: functions differ in their last bits between C libraries, and some between CPUs, so that whatever reaches a
// result of a run is computed here. std::sqrt, fma, floor, ldexp and the like are exact by IEEE 754 and stay.

#include <cstddef>

#include "core/functions/coefficients.h"
#include "core/functions/scalar.h"

namespace tessera::functions {

#include "core/functions/f32-inl.h"
#include "core/functions/f64-inl.h"

/// e^x within 0.8 ulp; results below 2^-126 are 0 (x < -87.34), above 88.72 infinity. No NaN has a sign or payload.
[[gnu::always_inline]] inline float exp(float x) { return exp_f32<Scalar<float>>(x); }
/// Natural logarithm within 0.83 ulp, of subnormals too; -infinity at both zeros, NaN below.
[[gnu::always_inline]] inline float log(float x) { return log_f32<Scalar<float>>(x); }
/// Within 0.71 ulp; odd, zeros and subnormals are their own.
[[gnu::always_inline]] inline float tanh(float x) { return tanh_f32<Scalar<float>>(x); }

/// e^x within 0.6 ulp; results below 2^-1022 are 0 (x < -708.4), from 2^1024 on infinity (x > 709.78).
double exp(double x);
/// Natural logarithm within 0.51 ulp, of subnormals too; -infinity at both zeros, NaN below.
double log(double x);
/// Logarithm to base 2 within 0.51 ulp; of powers of two exact. Ends as of `log`.
double log2(double x);
/// x^y within 0.6 ulp for x >= 0; x^0 = 1^y = 1, 0^y = 0 or infinity by the sign of y, else NaN for x < 0 and for NaN.
/// Results below 2^-1022 are 0, from 2^1024 on infinity. x^1 = x, and powers that f64 holds exactly are exact.
double pow(double x, double y);

struct SinCos {
  double sin, cos;
};
/// Both within 0.75 ulp for |x| <= 2^40, NaN beyond. Takes little longer than one of them.
SinCos sin_cos(double x);
double sin(double x);
double cos(double x);

}  // namespace tessera::functions
