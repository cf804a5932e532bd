// Compiled three times, with TESSERA_SWEEP for the function's name. What it calls of core/functions is always inlined,
// so that each copy runs its own code.
#include "core/functions_sweep.h"

#include "core/functions/functions.h"
#include "core/random.h"

namespace tessera::test {
namespace {

namespace f = tessera::functions;
using Single = f::Scalar<float>;
using Double = f::Scalar<double>;

template <class Function> uint64_t hash_f32(uint64_t step, Function&& function) {
  uint64_t hash = fnv1a(nullptr, 0);
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += step) {
    const float y = function(Single::from_bits(static_cast<uint32_t>(bits)));
    hash = fnv1a(&y, sizeof y, hash);
  }
  return hash;
}

/// First any bits, then numbers where the function has most to do.
template <class Function> uint64_t hash_f64(uint64_t count, double reach, Function&& function) {
  uint64_t hash = fnv1a(nullptr, 0);
  for (uint64_t i = 0; i < 2 * count; ++i) {
    const double y = function(i < count ? any_bits(i) : spread(i, reach));
    hash = fnv1a(&y, sizeof y, hash);
  }
  return hash;
}

}  // namespace

SweepHashes TESSERA_SWEEP(uint64_t step, uint64_t count) {
  return {
      {"exp f32", hash_f32(step, [](float x) { return f::exp_f32<Single>(x); })},
      {"log f32", hash_f32(step, [](float x) { return f::log_f32<Single>(x); })},
      {"tanh f32", hash_f32(step, [](float x) { return f::tanh_f32<Single>(x); })},
      {"exp f64", hash_f64(count, 1500, [](double x) { return f::exp_f64<Double>(x); })},
      {"log f64", hash_f64(count, 8, [](double x) { return f::log_f64<Double>(x); })},
      {"log2 f64", hash_f64(count, 8, [](double x) { return f::log2_f64<Double>(x); })},
      {"sin f64", hash_f64(count, 1 << 20, [](double x) { return f::sin_cos_f64<Double>(x).sin; })},
      {"cos f64", hash_f64(count, 1 << 20, [](double x) { return f::sin_cos_f64<Double>(x).cos; })},
      {"pow f64", hash_f64(count, 8,
                           [i = uint64_t{0}](double x) mutable {
                             return f::pow_f64<Double>(x, spread(i++ + (uint64_t{1} << 32), 400));
                           })},
  };
}

}  // namespace tessera::test
