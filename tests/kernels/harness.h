#pragma once
// What kernel tests share: matrices of any dtype with guarded padding, contexts, comparisons, gradient checks,
// instruction sets.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/random.h"
#include "kernels/table.h"
#include "support/cpu_targets.h"

namespace tessera::test {

constexpr double kUnit = 0x1p-24;  // relative error of one rounding to f32

/// A backend with a scratch arena and threads: `On cpu("cpu", 2); add(cpu, x, y);`
class On {
 public:
  explicit On(std::string_view backend, int threads = 1)
      : scratch_(int64_t{8} << 20),
        context_{
            .device = {}, .stream = {}, .kernels = kernels_for({}, backend), .scratch = scratch_, .threads = threads} {}
  operator const Context&() const { return context_; }
  Arena& scratch() { return scratch_; }

 private:
  Arena scratch_;
  Context context_;
};

/// `run(context)` takes from its scratch what "counting" plans for the cpu, to the byte. All its operands come from
/// there.
template <class Run> void expect_planned(Run&& run) {
  for (const int threads : {1, 2, 3}) {
    Arena counted = Arena::counting(), real(int64_t{64} << 20);
    for (Arena* arena : {&counted, &real})
      run(Context{.device = {},
                  .stream = {},
                  .kernels = kernels_for({}, arena == &counted ? "counting" : "cpu"),
                  .scratch = *arena,
                  .threads = threads});
    EXPECT_EQ(counted.peak_bytes(), real.peak_bytes()) << threads << " threads";
  }
}

/// A [rows, cols] matrix of a floating dtype whose rows are followed by padding that nobody may touch.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols, DType dtype, int64_t padding = 0)
      : storage_({rows, cols + padding}, dtype), cols_(cols), padding_(padding) {
    std::memset(storage_.view().mutable_data(), kGuard, static_cast<size_t>(storage_.view().bytes()));
  }
  /// Uniform in [-range, range); the values are f32, so that f32 and f64 twins are equal.
  static Matrix random(int64_t rows, int64_t cols, DType dtype, uint64_t seed, double range = 1, int64_t padding = 0) {
    Matrix matrix(rows, cols, dtype, padding);
    const RandomStream stream(seed, 77);
    for (int64_t i = 0; i < rows * cols; ++i)
      matrix.set(i / cols, i % cols, static_cast<float>(range * (2.0 * stream.uniform(static_cast<uint64_t>(i)) - 1)));
    return matrix;
  }
  static Matrix zeros(int64_t rows, int64_t cols, DType dtype, int64_t padding = 0) {
    Matrix matrix(rows, cols, dtype, padding);
    for (int64_t i = 0; i < rows * cols; ++i) matrix.set(i / cols, i % cols, 0);
    return matrix;
  }
  /// The same values in another dtype.
  Matrix as(DType dtype) const {
    Matrix copy(rows(), cols_, dtype, padding_);
    for (int64_t i = 0; i < rows() * cols_; ++i) copy.set(i / cols_, i % cols_, at(i / cols_, i % cols_));
    return copy;
  }
  Matrix copy() const { return as(dtype()); }

  TensorView view() const { return storage_.view().slice_cols(0, cols_); }
  operator TensorView() const { return view(); }
  /// The first row as a vector.
  TensorView vector() const { return TensorView(storage_.view().mutable_data(), {cols_}, dtype()); }
  int64_t rows() const { return storage_.shape()[0]; }
  int64_t cols() const { return cols_; }
  DType dtype() const { return storage_.dtype(); }

  double at(int64_t r, int64_t c) const { return element(storage_.view(), r * (cols_ + padding_) + c); }
  void set(int64_t r, int64_t c, double value) {
    std::byte* p =
        static_cast<std::byte*>(storage_.view().mutable_data()) + (r * (cols_ + padding_) + c) * size_of(dtype());
    switch (dtype()) {
      case DType::f64:
        std::memcpy(p, &value, 8);
        break;
      case DType::f32: {
        const float v = static_cast<float>(value);
        std::memcpy(p, &v, 4);
        break;
      }
      case DType::bf16: {
        const BFloat16 v = to_bfloat16(static_cast<float>(value));
        std::memcpy(p, &v, 2);
        break;
      }
      default: {
        const Float16 v = to_float16(static_cast<float>(value));
        std::memcpy(p, &v, 2);
        break;
      }
    }
  }
  bool is_padding_untouched() const {
    const auto* bytes = static_cast<const std::byte*>(storage_.view().data);
    for (int64_t i = 0; i < storage_.view().bytes(); ++i) {
      const int64_t column = i / size_of(dtype()) % (cols_ + padding_);
      if (column >= cols_ && bytes[i] != std::byte{kGuard}) return false;
    }
    return true;
  }
  bool equals_bitwise(const Matrix& other) const {
    for (int64_t r = 0; r < rows(); ++r)
      if (std::memcmp(view().slice_rows(r, r + 1).data, other.view().slice_rows(r, r + 1).data,
                      static_cast<size_t>(cols_ * size_of(dtype()))) != 0)
        return false;
    return true;
  }

 private:
  static constexpr int kGuard = 0x5a;
  Tensor storage_;
  int64_t cols_, padding_;
};

/// |got - want| <= tolerance(r, c) everywhere, and got's padding is untouched.
inline void expect_within(const Matrix& got, const Matrix& want,
                          const std::function<double(int64_t, int64_t)>& tolerance) {
  ASSERT_EQ(got.rows(), want.rows());
  ASSERT_EQ(got.cols(), want.cols());
  for (int64_t r = 0; r < got.rows(); ++r)
    for (int64_t c = 0; c < got.cols(); ++c)
      ASSERT_NEAR(got.at(r, c), want.at(r, c), tolerance(r, c)) << "at row " << r << ", column " << c;
  EXPECT_TRUE(got.is_padding_untouched());
}

inline void expect_relative(const Matrix& got, const Matrix& want, double relative) {
  expect_within(got, want, [&](int64_t r, int64_t c) { return relative * std::abs(want.at(r, c)) + 1e-37; });
}

/// `gradient` is d loss() / d x, by central differences in f64: with step 1e-5 they are off by about 1e-10 of the third
/// derivative plus 1e-11 of the loss.
inline void expect_gradient(Matrix& x, const Matrix& gradient, const std::function<double()>& loss,
                            double tolerance = 1e-7) {
  constexpr double kStep = 1e-5;
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < x.cols(); ++c) {
      const double value = x.at(r, c);
      x.set(r, c, value + kStep);
      const double above = loss();
      x.set(r, c, value - kStep);
      const double below = loss();
      x.set(r, c, value);
      const double numeric = (above - below) / (2 * kStep);
      ASSERT_NEAR(gradient.at(r, c), numeric, tolerance * (1 + std::abs(numeric)))
          << "at row " << r << ", column " << c;
    }
  }
}

/// Σ a · b
inline double dot(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (int64_t r = 0; r < a.rows(); ++r)
    for (int64_t c = 0; c < a.cols(); ++c) sum += a.at(r, c) * b.at(r, c);
  return sum;
}

/// A suite that runs once for each instruction set of this kind of machine, and skips those that this one lacks.
class OnEachInstructionSet : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::vector<std::string> here = cpu_targets();
    if (std::find(here.begin(), here.end(), GetParam()) == here.end())
      GTEST_SKIP() << "this machine has no " << GetParam();
    use_cpu_target(GetParam());
  }
  void TearDown() override { use_cpu_target("auto"); }
};

/// Calls f(name) with each instruction set of this machine in use, then goes back to the best.
template <class F> void for_each_target(F&& f) {
  for (const std::string& name : cpu_targets()) {
    SCOPED_TRACE(name);
    use_cpu_target(name);
    f(name);
  }
  use_cpu_target("auto");
}

#ifdef __x86_64__
inline const std::vector<std::string> kInstructionSets{"avx3", "avx2", "scalar"};
#else
inline const std::vector<std::string> kInstructionSets{"neon", "scalar"};
#endif

#define TESSERA_ON_EACH_INSTRUCTION_SET(suite)                                               \
  INSTANTIATE_TEST_SUITE_P(Cpu, suite, testing::ValuesIn(::tessera::test::kInstructionSets), \
                           [](const auto& info) { return info.param; })

/// Row lengths around the vector widths 4, 8 and 16, odd ones and one long one.
inline const std::vector<int64_t> kLengths{1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 577};

}  // namespace tessera::test
