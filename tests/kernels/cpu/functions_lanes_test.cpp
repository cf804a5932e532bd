// core/functions in lanes: every instruction set that is compiled in and that this CPU has gives the bits of the plain
// loop.
#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/functions_lanes_test.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/functions-inl.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

void exp_row(const float* x, int64_t n, float* y) {
  for_vectors(n, [&](int64_t i, auto v) HWY_ATTR { v.store(Exp(kFloats, v.load(x + i)), y + i); });
}
void log_row(const float* x, int64_t n, float* y) {
  for_vectors(n, [&](int64_t i, auto v) HWY_ATTR { v.store(Log(kFloats, v.load(x + i)), y + i); });
}
void tanh_row(const float* x, int64_t n, float* y) {
  for_vectors(n, [&](int64_t i, auto v) HWY_ATTR { v.store(Tanh(kFloats, v.load(x + i)), y + i); });
}

/// y [5, n]: exp, log, sin, cos of x[i] and its power of 3/4, in f64; n is a multiple of the lanes.
void f64_rows(const double* x, int64_t n, double* y) {
  using D = hn::ScalableTag<double>;
  using A = lanes::Lanes<D>;
  const D d;
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    const auto v = hn::LoadU(d, x + i);
    const auto turn = lanes::sin_cos_f64<A>(v);
    hn::StoreU(lanes::exp_f64<A>(v), d, y + i);
    hn::StoreU(lanes::log_f64<A>(v), d, y + n + i);
    hn::StoreU(turn.sin, d, y + 2 * n + i);
    hn::StoreU(turn.cos, d, y + 3 * n + i);
    hn::StoreU(lanes::pow_f64<A>(v, hn::Set(d, 0.75)), d, y + 4 * n + i);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <bit>
#include <vector>
#if HWY_ARCH_X86
#include <immintrin.h>
#endif

#include "kernels/harness.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(exp_row);
HWY_EXPORT(log_row);
HWY_EXPORT(tanh_row);
HWY_EXPORT(f64_rows);

using Row = void (*)(const float*, int64_t, float*);

/// Runs of 4099 arguments, so that every width has a remainder.
template <class Scalar> uint64_t differences(Row row, Scalar scalar, uint64_t step) {
  std::vector<float> x(4099), y(4099);
  uint64_t count = 0;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32;) {
    size_t n = 0;
    for (; n < x.size() && bits < uint64_t{1} << 32; ++n, bits += step)
      x[n] = std::bit_cast<float>(static_cast<uint32_t>(bits));
    row(x.data(), static_cast<int64_t>(n), y.data());
    for (size_t i = 0; i < n; ++i) count += std::bit_cast<uint32_t>(y[i]) != std::bit_cast<uint32_t>(scalar(x[i]));
  }
  return count;
}

/// How many results of exp, log and tanh differ.
uint64_t differences(uint64_t step) {
  const auto exp = [](const float* x, int64_t n, float* y) { HWY_DYNAMIC_DISPATCH(exp_row)(x, n, y); };
  const auto log = [](const float* x, int64_t n, float* y) { HWY_DYNAMIC_DISPATCH(log_row)(x, n, y); };
  const auto tanh = [](const float* x, int64_t n, float* y) { HWY_DYNAMIC_DISPATCH(tanh_row)(x, n, y); };
  return differences(
             exp, [](float x) { return functions::exp(x); }, step) +
         differences(
             log, [](float x) { return functions::log(x); }, step) +
         differences(
             tanh, [](float x) { return functions::tanh(x); }, step);
}

class FunctionLanes : public test::OnEachInstructionSet {};

TEST_P(FunctionLanes, HaveTheBitsOfThePlainLoop) { EXPECT_EQ(differences(1999), 0u); }

#if HWY_ARCH_X86
TEST_P(FunctionLanes, HaveThemWhateverFlushToZeroSays) {
  // The plain loop is not asked under the same flags: its answers come first.
  std::vector<float> x, wanted, got;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 99991)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  const auto n = static_cast<int64_t>(x.size());
  for (const float v : x) wanted.push_back(functions::log(v));
  for (const float v : x) wanted.push_back(functions::exp(v));
  for (const float v : x) wanted.push_back(functions::tanh(v));
  got.resize(wanted.size());
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  HWY_DYNAMIC_DISPATCH(log_row)(x.data(), n, got.data());
  HWY_DYNAMIC_DISPATCH(exp_row)(x.data(), n, got.data() + n);
  HWY_DYNAMIC_DISPATCH(tanh_row)(x.data(), n, got.data() + 2 * n);
  _mm_setcsr(before);
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(wanted[i])) << i;
}
#endif

TEST_P(FunctionLanes, HaveThoseOfF64Too) {
  constexpr int64_t kCount = 80000;
  std::vector<double> x(kCount), y(5 * kCount);
  for (int64_t i = 0; i < kCount; ++i) {
    const uint64_t bits = mix64(static_cast<uint64_t>(i));
    x[i] = i % 2 ? std::bit_cast<double>(bits) : 1500 * (static_cast<double>(bits >> 11) * 0x1p-53 - 0.5);
  }
  HWY_DYNAMIC_DISPATCH(f64_rows)(x.data(), kCount, y.data());
  for (int64_t i = 0; i < kCount; ++i) {
    const double wanted[5] = {functions::exp(x[i]), functions::log(x[i]), functions::sin(x[i]), functions::cos(x[i]),
                              functions::pow(x[i], 0.75)};
    for (int64_t k = 0; k < 5; ++k)
      ASSERT_EQ(std::bit_cast<uint64_t>(y[k * kCount + i]), std::bit_cast<uint64_t>(wanted[k]))
          << "function " << k << " of " << std::hexfloat << x[i];
  }
}

TESSERA_ON_EACH_INSTRUCTION_SET(FunctionLanes);

}  // namespace
}  // namespace tessera::cpu
#endif
