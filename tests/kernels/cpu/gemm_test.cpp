// The cpu gemm against the reference over shapes on both sides of every switch: kernels, blocks, tiles and their tails.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/random.h"
#include "hwy/targets.h"
#include "kernels/cpu/scratch.h"
#include "kernels/gemm.h"
#include "kernels/table.h"

namespace tessera {
namespace {

constexpr Transpose kNo = Transpose::no, kYes = Transpose::yes;

struct Problem {
  int64_t m, n, k;
  Transpose a = kNo, b = kNo;
  DType b_dtype = DType::f32;
  double alpha = 1, beta = 0;
  int64_t padding = 0;  // extra elements between rows
};

std::ostream& operator<<(std::ostream& out, const Problem& p) {
  return out << "M=" << p.m << " N=" << p.n << " K=" << p.k << (p.a == kYes ? " T" : " N")
             << (p.b == kYes ? "T " : "N ") << name_of(p.b_dtype) << " alpha=" << p.alpha << " beta=" << p.beta
             << " padding=" << p.padding;
}

/// A [rows, cols] view with `padding` unused columns behind each row, filled with numbers in [-1, 1).
struct Matrix {
  Tensor storage;
  TensorView view;
  Matrix(int64_t rows, int64_t cols, int64_t padding, uint64_t seed, DType dtype = DType::f32)
      : storage({rows, cols + padding}, dtype), view(storage.view().slice_cols(0, cols)) {
    const auto count = static_cast<size_t>(storage.shape().count());
    for (size_t i = 0; i < count; ++i) {
      const float x = to_unit(static_cast<uint32_t>(mix64(seed * 1000003 + i))) * 2 - 1;
      if (dtype == DType::f32) storage.as<float>()[i] = x;
      if (dtype == DType::bf16) storage.as<BFloat16>()[i] = to_bfloat16(x);
      if (dtype == DType::f16) storage.as<Float16>()[i] = to_float16(x);
    }
  }
};

struct Operands {
  Matrix a, b, c;
  explicit Operands(const Problem& p)
      : a(p.a == kYes ? p.k : p.m, p.a == kYes ? p.m : p.k, p.padding, 1),
        b(p.b == kYes ? p.n : p.k, p.b == kYes ? p.k : p.n, p.padding, 2, p.b_dtype),
        c(p.m, p.n, p.padding, 3) {}
  GemmArgs args(const Problem& p) const {
    return {.a = a.view,
            .a_transpose = p.a,
            .b = b.view,
            .b_transpose = p.b,
            .c = c.view,
            .alpha = p.alpha,
            .beta = p.beta};
  }
};

/// Runs with exactly the planned scratch.
void run(const Problem& p, const Operands& operands, std::string_view backend, int threads = 1,
         Repeat repeat = Repeat::reproducible) {
  const GemmArgs args = operands.args(p);
  Arena scratch(std::max<int64_t>(64, cpu::gemm_scratch_bytes(args, threads)));
  gemm({.device = {},
        .stream = {},
        .kernels = kernels_for({}, backend),
        .scratch = scratch,
        .threads = threads,
        .repeat = repeat},
       args);
}

void expect_like_reference(const Problem& p) {
  const Operands found(p), expected(p);
  run(p, found, "cpu");
  run(p, expected, "reference");
  // |error| <= (K + 4) eps (|alpha| Σ|a||b| + |beta c|), the bound of a sum in any order; entries are below 1.
  const double bound =
      (static_cast<double>(p.k) + 4) * 6e-8 * (std::abs(p.alpha) * static_cast<double>(p.k) + std::abs(p.beta));
  const auto x = found.c.storage.as<float>(), y = expected.c.storage.as<float>();
  for (size_t i = 0; i < x.size(); ++i) {
    const bool inside = static_cast<int64_t>(i) % (p.n + p.padding) < p.n;
    if (inside)
      ASSERT_NEAR(x[i], y[i], bound) << p << " element " << i;
    else
      ASSERT_EQ(x[i], y[i]) << p << ": wrote behind a row";
  }
}

std::vector<float> result(const Problem& p, int threads) {
  const Operands operands(p);
  run(p, operands, "cpu", threads);
  const auto c = operands.c.storage.as<float>();
  return {c.begin(), c.end()};
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(CpuGemm, AgreesWithTheReferenceForEverySizeAroundTheTiles) {
  const int64_t sizes[] = {1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 49, 65, 100};
  for (int64_t m : sizes)
    for (int64_t n : sizes)
      for (int64_t k : {1, 2, 7, 16, 19, 64, 97})
        for (Transpose a : {kNo, kYes})
          for (Transpose b : {kNo, kYes}) expect_like_reference({.m = m, .n = n, .k = k, .a = a, .b = b});
}

TEST(CpuGemm, AgreesWithTheReferenceOnTheShapesOfAFineTune) {
  for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (int64_t m : {1, 3, 24, 130}) {
      expect_like_reference({.m = m, .n = 576, .k = 200, .b = kYes, .b_dtype = dtype});
      expect_like_reference({.m = m, .n = 192, .k = 1100, .b = kYes, .b_dtype = dtype});  // two tiles of K when widened
      expect_like_reference({.m = m, .n = 200, .k = 1100, .b_dtype = dtype, .beta = 1});
      expect_like_reference({.m = m, .n = 1000, .k = 48, .b_dtype = dtype});
    }
    for (int64_t rank : {2, 8, 13, 64}) {
      expect_like_reference({.m = 130, .n = rank, .k = 300, .b = kYes, .b_dtype = dtype});
      expect_like_reference({.m = 130, .n = 300, .k = rank, .b_dtype = dtype, .alpha = 0.5, .beta = 1});
      expect_like_reference({.m = rank, .n = 300, .k = 130, .a = kYes, .b_dtype = dtype, .beta = 1});
    }
  }
}

TEST(CpuGemm, AgreesWithTheReferenceOnEveryInstructionSet) {
  for (int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    for (int64_t n : {1, 7, 35, 70}) {
      for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        expect_like_reference({.m = 3, .n = n, .k = 61, .b = kYes, .b_dtype = dtype});
        expect_like_reference({.m = 70, .n = n, .k = 61, .b = kYes, .b_dtype = dtype});
      }
      expect_like_reference({.m = 70, .n = n, .k = 9, .beta = 1});
      expect_like_reference({.m = 13, .n = n, .k = 61, .a = kYes});
    }
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(CpuGemm, ScalesByAlphaAndBetaAndKeepsOutOfThePadding) {
  for (double alpha : {1.0, -0.5, 0.0})
    for (double beta : {0.0, 1.0, -2.0})
      for (int64_t n : {7, 96, 130})
        for (int64_t k : {0, 5, 70})
          for (Transpose b : {kNo, kYes})
            for (DType dtype : {DType::f32, DType::bf16})
              expect_like_reference(
                  {.m = 37, .n = n, .k = k, .b = b, .b_dtype = dtype, .alpha = alpha, .beta = beta, .padding = 5});
}

TEST(CpuGemm, IgnoresWhatCHeldWhenBetaIsZero) {
  for (const Problem& p : {Problem{.m = 40, .n = 200, .k = 60}, Problem{.m = 40, .n = 8, .k = 60, .b = kYes},
                           Problem{.m = 40, .n = 200, .k = 8}, Problem{.m = 40, .n = 200, .k = 0},
                           Problem{.m = 70, .n = 200, .k = 1100, .b = kYes, .b_dtype = DType::bf16}}) {
    const Operands operands(p);
    for (float& x : operands.c.storage.as<float>()) x = std::numeric_limits<float>::quiet_NaN();
    run(p, operands, "cpu");
    for (float x : operands.c.storage.as<float>()) ASSERT_TRUE(std::isfinite(x)) << p;
  }
}

TEST(CpuGemm, GivesTheSameBitsForAnyNumberOfThreads) {
  for (const Problem& p :
       {Problem{.m = 130, .n = 576, .k = 200, .b = kYes, .b_dtype = DType::bf16}, Problem{.m = 130, .n = 700, .k = 100},
        Problem{.m = 100, .n = 192, .k = 64, .a = kYes, .beta = 1}, Problem{.m = 300, .n = 8, .k = 200, .b = kYes},
        Problem{.m = 300, .n = 200, .k = 8, .beta = 1}, Problem{.m = 8, .n = 300, .k = 200, .a = kYes, .beta = 1},
        Problem{.m = 300, .n = 40, .k = 500, .b = kYes},
        Problem{.m = 1, .n = 1000, .k = 200, .b = kYes, .b_dtype = DType::f16}}) {
    const std::vector<float> one = result(p, 1);
    for (int threads : {2, 3, 5}) EXPECT_TRUE(same_bits(one, result(p, threads))) << p << " threads=" << threads;
  }
}

TEST(CpuGemm, GivesARowTheSameBitsWhateverItsNeighboursWhenBatchInvariant) {
  for (const Problem& all :
       {Problem{.m = 20, .n = 200, .k = 500, .b = kYes}, Problem{.m = 90, .n = 70, .k = 500},
        Problem{.m = 70, .n = 6, .k = 500, .b = kYes}, Problem{.m = 70, .n = 90, .k = 8, .beta = 1},
        Problem{.m = 20, .n = 100, .k = 400, .b = kYes, .b_dtype = DType::bf16}}) {
    const Operands operands(all), fresh(all);
    run(all, operands, "cpu", 2, Repeat::batch_invariant);
    for (int64_t row : {int64_t{0}, int64_t{7}, all.m - 1}) {
      Problem one = all;
      one.m = 1;
      const Operands alone(one);
      std::memcpy(alone.a.view.row<float>(0), operands.a.view.row<float>(row),
                  static_cast<size_t>(all.k) * sizeof(float));
      std::memcpy(alone.c.view.row<float>(0), fresh.c.view.row<float>(row), static_cast<size_t>(all.n) * sizeof(float));
      run(one, alone, "cpu", 1, Repeat::batch_invariant);
      EXPECT_EQ(std::memcmp(alone.c.view.row<float>(0), operands.c.view.row<float>(row),
                            static_cast<size_t>(all.n) * sizeof(float)),
                0)
          << all << " row " << row;
    }
  }
}

}  // namespace
}  // namespace tessera
