// functions_bench: core/functions in the widest lanes of this CPU (f32, a row of 1536 in cache; "copy" is the
// floor) and one at a time (f64, beside the C library). Rates are in 1e9 values a second.
#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/functions_bench.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/functions-inl.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

template <class Function> HWY_INLINE void each(const float* x, int64_t n, float* y, Function&& function) {
  for_vectors(n, [&](int64_t i, auto v) HWY_ATTR { v.store(function(v.load(x + i)), y + i); });
}

void copy_row(const float* x, int64_t n, float* y) {
  each(x, n, y, [](FloatVec v) HWY_ATTR { return v; });
}
void exp_row(const float* x, int64_t n, float* y) {
  each(x, n, y, [](FloatVec v) HWY_ATTR { return Exp(kFloats, v); });
}
void log_row(const float* x, int64_t n, float* y) {
  each(x, n, y, [](FloatVec v) HWY_ATTR { return Log(kFloats, v); });
}
void tanh_row(const float* x, int64_t n, float* y) {
  each(x, n, y, [](FloatVec v) HWY_ATTR { return Tanh(kFloats, v); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "bench/harness.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(copy_row);
HWY_EXPORT(exp_row);
HWY_EXPORT(log_row);
HWY_EXPORT(tanh_row);

constexpr int64_t kRow = 1536;

template <class Row> void run_row(std::string_view name, Row&& row) {
  const Tensor x = bench::random_tensor({kRow}, 1), y({kRow}, DType::f32);
  bench::report("functions", name, 1,
                bench::measure([&] { row(x.as<float>().data(), kRow, y.as<float>().data()); }, 0.2), 1e-9 * kRow,
                "values/ns");
}

/// Of numbers spread evenly from 0 to `reach`; the sum keeps the compiler from leaving calls out.
template <class Function> void run_f64(std::string_view name, double reach, Function&& function) {
  const RandomStream random(1, 0);
  std::vector<double> x(kRow);
  for (size_t i = 0; i < x.size(); ++i) x[i] = reach * (random.uniform(i) + 1e-9);
  double sum = 0;
  bench::report("functions", name, 1,
                bench::measure(
                    [&] {
                      for (const double v : x) sum += function(v);
                    },
                    0.2),
                1e-9 * kRow, "values/ns");
  if (std::isnan(sum)) fmt::print("NaN\n");
}

void run_all() {
  run_row("copy", [](auto... args) { HWY_DYNAMIC_DISPATCH(copy_row)(args...); });
  run_row("exp f32", [](auto... args) { HWY_DYNAMIC_DISPATCH(exp_row)(args...); });
  run_row("log f32", [](auto... args) { HWY_DYNAMIC_DISPATCH(log_row)(args...); });
  run_row("tanh f32", [](auto... args) { HWY_DYNAMIC_DISPATCH(tanh_row)(args...); });
  run_f64("exp f64", 10, [](double x) { return functions::exp(x); });
  run_f64("exp f64, C library", 10, [](double x) { return std::exp(x); });
  run_f64("log f64", 10, [](double x) { return functions::log(x); });
  run_f64("log f64, C library", 10, [](double x) { return std::log(x); });
  run_f64("sin and cos f64", 8192, [](double x) {
    const auto [sin, cos] = functions::sin_cos(x);
    return sin + cos;
  });
  run_f64("sin and cos f64, C library", 8192, [](double x) { return std::sin(x) + std::cos(x); });
  run_f64("pow f64", 10, [](double x) { return functions::pow(x, 3.3); });
  run_f64("pow f64, C library", 10, [](double x) { return std::pow(x, 3.3); });
}

}  // namespace
}  // namespace tessera::cpu

int main() { tessera::cpu::run_all(); }
#endif
