// The error of core/functions in ulps, against MPFR. TESSERA_POINTS=5000000 asks for as many arguments of each kind in
// place of 20,000; docs/functions.md has the figures of such a run.
#include <gtest/gtest.h>

#ifdef TESSERA_MPFR
#include <mpfr.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <vector>

#include "core/functions/functions.h"
#include "core/random.h"

namespace tessera {
namespace {

uint64_t points() {
  const char* given = std::getenv("TESSERA_POINTS");
  return given ? std::strtoull(given, nullptr, 10) : 20000;
}

/// In [0, 1).
double uniform(uint64_t i) { return static_cast<double>(mix64(i) >> 11) * 0x1p-53; }

class Precise {
 public:
  explicit Precise(int precision = 200) { mpfr_init2(value_, precision); }
  Precise(const Precise&) = delete;
  Precise& operator=(const Precise&) = delete;
  ~Precise() { mpfr_clear(value_); }
  operator mpfr_ptr() { return value_; }

  /// |this − y| in units of the last of `digits` bits of this.
  double ulps_to(double y, int digits) {
    mpfr_sub_d(difference_.value_, value_, y, MPFR_RNDN);
    mpfr_mul_2si(difference_.value_, difference_.value_, digits - mpfr_get_exp(value_), MPFR_RNDN);
    return std::abs(mpfr_get_d(difference_.value_, MPFR_RNDN));
  }

 private:
  struct Plain {
    mpfr_t value_;
    Plain() { mpfr_init2(value_, 200); }
    ~Plain() { mpfr_clear(value_); }
  };
  mpfr_t value_;
  Plain difference_;
};

/// The greatest error seen. Results that are 0, infinite or NaN have tests of their own.
class Worst {
 public:
  explicit Worst(int digits) : digits_(digits) {}
  template <class Truth> void look(double x, double got, Truth&& truth) {
    if (!std::isfinite(got) || got == 0) return;
    mpfr_set_d(x_, x, MPFR_RNDN);
    truth(wanted_, x_);
    const double error = wanted_.ulps_to(got, digits_);
    ++seen_;
    if (error > ulps_) ulps_ = error, at_ = x;
  }
  void expect_below(double bound, std::string_view name) const {
    EXPECT_LT(ulps_, bound) << name << " at " << std::hexfloat << at_;
    EXPECT_GT(seen_, 1000u) << name;
    std::printf("  %s: %.4f ulp at %a, of %llu arguments\n", std::string(name).c_str(), ulps_, at_,
                static_cast<unsigned long long>(seen_));
  }

 private:
  int digits_;
  Precise x_, wanted_;
  double ulps_ = 0, at_ = 0;
  uint64_t seen_ = 0;
};

using Truth = int (*)(mpfr_t, const mpfr_t, mpfr_rnd_t);

void check_f32(float (*function)(float), Truth truth, double bound, std::string_view name) {
  Worst worst(24);
  const auto look = [&](uint32_t bits) {
    const auto x = std::bit_cast<float>(bits);
    worst.look(x, function(x), [&](mpfr_ptr y, mpfr_ptr z) { truth(y, z, MPFR_RNDN); });
  };
  const uint64_t step = std::max<uint64_t>(1, (uint64_t{1} << 32) / points());
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += step) look(static_cast<uint32_t>(bits));
  // Where the function is neither 1 nor its argument nor infinite, and at the edges of every binade.
  for (uint64_t i = 0; i < points(); ++i)
    look(std::bit_cast<uint32_t>(static_cast<float>((uniform(i) - 0.5) * std::exp2(8 * uniform(~i)))));
  for (uint32_t edge = 0; edge < 0x200; ++edge)
    for (const uint32_t offset : {0u, 1u, 2u, 0x3504f2u, 0x3504f3u, 0x400000u, 0x7ffffeu, 0x7fffffu})
      look(edge << 23 | offset);
  worst.expect_below(bound, name);
}

TEST(FunctionAccuracy, SinglePrecision) {
  check_f32([](float x) { return functions::exp(x); }, mpfr_exp, 0.8, "exp f32");
  check_f32([](float x) { return functions::log(x); }, mpfr_log, 0.85, "log f32");
  check_f32([](float x) { return functions::tanh(x); }, mpfr_tanh, 0.8, "tanh f32");
}

using Draw = double (*)(uint64_t);

void check_f64(double (*function)(double), Truth truth, double bound, std::string_view name,
               const std::vector<Draw>& draws) {
  Worst worst(53);
  for (const Draw draw : draws)
    for (uint64_t i = 0; i < points(); ++i) {
      const double x = draw(i);
      worst.look(x, function(x), [&](mpfr_ptr y, mpfr_ptr z) { truth(y, z, MPFR_RNDN); });
    }
  worst.expect_below(bound, name);
}

double any_positive(uint64_t i) { return std::bit_cast<double>(mix64(i) >> 1); }
/// Up to 1000 ulps around 1.
double near_one(uint64_t i) { return 1 + (static_cast<double>(i % 2000) - 1000) * 0x1p-53; }

TEST(FunctionAccuracy, Exponential) {
  check_f64(
      functions::exp, mpfr_exp, 0.6, "exp f64",
      {[](uint64_t i) { return 1420 * uniform(i) - 709; }, [](uint64_t i) { return 2 * uniform(i) - 1; },
       [](uint64_t i) { return std::ldexp(uniform(i) - 0.5, -static_cast<int>(i % 60)); },
       // n ln 2 and (n + 1/2) ln 2, as near as f64 comes: r is tiny, or changes its sign.
       [](uint64_t i) { return static_cast<double>(static_cast<int64_t>(i % 4000) - 2000) * std::log(2.0) / 2; }});
}

TEST(FunctionAccuracy, Logarithms) {
  const std::vector<Draw> draws{any_positive, near_one, [](uint64_t i) { return 0.5 + 1.5 * uniform(i); },
                                // Subnormals, and both sides of sqrt 1/2, where the exponent changes.
                                [](uint64_t i) { return std::bit_cast<double>(mix64(i) >> (12 + i % 40)); },
                                [](uint64_t i) { return std::bit_cast<double>(0x3fe6a09e667f3bcdu - 500 + i % 1000); }};
  check_f64(functions::log, mpfr_log, 0.51, "log f64", draws);
  check_f64(functions::log2, mpfr_log2, 0.51, "log2 f64", draws);
}

/// The f64 next to a multiple of pi / 2 below 2^40.
double next_to_a_quarter(uint64_t i) {
  static Precise pi(200), product(200);
  mpfr_const_pi(pi, MPFR_RNDN);
  const double n = i % 2 ? static_cast<double>(i / 2) : std::floor(0x1p39 * uniform(i));
  mpfr_mul_d(product, pi, n / 2, MPFR_RNDN);
  return mpfr_get_d(product, MPFR_RNDN);
}

TEST(FunctionAccuracy, SineAndCosine) {
  const Draw wide = [](uint64_t i) { return (2 * uniform(i) - 1) * std::exp2(50 * uniform(~i) - 10); };
  const Draw turns = [](uint64_t i) { return (2 * uniform(i) - 1) * 8; };
  const Draw positions = [](uint64_t i) { return std::floor(1e6 * uniform(i)) * std::pow(1e5, -uniform(~i)); };
  const Draw tiny = [](uint64_t i) { return std::ldexp(uniform(i) - 0.5, -static_cast<int>(i % 1000)); };
  check_f64(functions::sin, mpfr_sin, 0.75, "sin f64", {wide, turns, positions, tiny, next_to_a_quarter});
  check_f64(functions::cos, mpfr_cos, 0.75, "cos f64", {wide, turns, positions, tiny, next_to_a_quarter});
}

TEST(FunctionAccuracy, Power) {
  Worst worst(53);
  Precise y(53);
  const auto look = [&](double x, double power) {
    mpfr_set_d(y, power, MPFR_RNDN);
    worst.look(x, functions::pow(x, power), [&](mpfr_ptr z, mpfr_ptr base) { mpfr_pow(z, base, y, MPFR_RNDN); });
  };
  for (uint64_t i = 0; i < points(); ++i) {
    // Powers that use the whole range of results, of any base and of bases next to 1.
    const double reach = 1416 * uniform(i) - 708, any = any_positive(i), near = near_one(i);
    if (any < 1e308 && any != 1) look(any, reach / std::log(any));
    if (near != 1) look(near, std::min(0x1p60, reach / std::log(near)));
    look(1 - std::exp2(-1 - 20 * uniform(i)), std::floor(std::exp2(24 * uniform(~i))));  // beta ^ step
    look(std::exp2(8 + 16 * uniform(i)), -static_cast<double>(i % 128) / 128);           // theta ^ -(2 i / head_dim)
  }
  worst.expect_below(0.6, "pow f64");
}

}  // namespace
}  // namespace tessera

#else

TEST(FunctionAccuracy, IsMeasuredAgainstMpfr) { GTEST_SKIP() << "built without MPFR (Debian: libmpfr-dev)"; }

#endif
