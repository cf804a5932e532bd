// The f64 functions, out of line: each is compiled a second time for CPUs with the fma instruction, which this program
// may not take for granted on x86, where the C library's fma would take most of the time, and with vectors of four.
// Bits are the same.

#include "core/functions/functions.h"

#include "core/functions/each.h"

namespace tessera::functions {
namespace {

using Double = Scalar<double>;

#if defined(__x86_64__) && !defined(__FMA__)
const bool kHasFma = __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");

/// `work` has to be inlined here, to be compiled for what this function is compiled for.
template <class Work> [[gnu::target("avx2,fma")]] auto with_fma(const Work& work) { return work(); }

template <class Work> [[gnu::always_inline]] inline auto run(const Work& work) {
  return kHasFma ? with_fma(work) : work();
}
#else
template <class Work> [[gnu::always_inline]] inline auto run(const Work& work) { return work(); }
#endif

}  // namespace

double exp(double x) {
  return run([=]() __attribute__((always_inline)) { return exp_f64<Double>(x); });
}

void exp(std::span<const double> x, double* y) {
  run([=]() __attribute__((always_inline)) {
    for (size_t i = 0; i < x.size(); ++i) y[i] = exp_f64<Double>(x[i]);
  });
}

double log(double x) {
  return run([=]() __attribute__((always_inline)) { return log_f64<Double>(x); });
}

double log2(double x) {
  return run([=]() __attribute__((always_inline)) { return log2_f64<Double>(x); });
}

double pow(double x, double y) {
  return run([=]() __attribute__((always_inline)) { return pow_f64<Double>(x, y); });
}

SinCos sin_cos(double x) {
  return run([=]() __attribute__((always_inline)) {
    const auto [sin, cos] = sin_cos_f64<Double>(x);
    return SinCos{sin, cos};
  });
}

double sin(double x) { return sin_cos(x).sin; }
double cos(double x) { return sin_cos(x).cos; }

}  // namespace tessera::functions
