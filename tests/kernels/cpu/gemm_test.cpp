// The cpu gemm against the reference over shapes on both sides of every switch: kernels, blocks, tiles and their tails.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/random.h"
#include "kernels/cpu/scratch.h"
#include "kernels/gemm.h"
#include "kernels/harness.h"
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
  Sum sum = Sum::blocks;
};

std::ostream& operator<<(std::ostream& out, const Problem& p) {
  return out << "M=" << p.m << " N=" << p.n << " K=" << p.k << (p.a == kYes ? " T" : " N")
             << (p.b == kYes ? "T " : "N ") << name_of(p.b_dtype) << " alpha=" << p.alpha << " beta=" << p.beta
             << " padding=" << p.padding << (p.sum == Sum::chain ? " chain" : "");
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
            .beta = p.beta,
            .sum = p.sum};
  }
};

/// Runs with exactly the planned scratch.
void run(const Problem& p, const Operands& operands, std::string_view backend, int threads = 1) {
  const GemmArgs args = operands.args(p);
  Arena scratch(std::max<int64_t>(64, cpu::gemm_scratch_bytes(args, threads)));
  gemm({.device = {}, .stream = {}, .kernels = kernels_for({}, backend), .scratch = scratch, .threads = threads}, args);
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
  test::for_each_target([](const std::string&) {
    for (int64_t n : {1, 7, 35, 70}) {
      for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        expect_like_reference({.m = 3, .n = n, .k = 61, .b = kYes, .b_dtype = dtype});
        expect_like_reference({.m = 70, .n = n, .k = 61, .b = kYes, .b_dtype = dtype});
      }
      expect_like_reference({.m = 70, .n = n, .k = 9, .beta = 1});
      expect_like_reference({.m = 13, .n = n, .k = 61, .a = kYes});
    }
  });
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
        Problem{.m = 700, .n = 130, .k = 100, .a = kYes, .beta = 1, .sum = Sum::chain},
        Problem{.m = 1, .n = 1000, .k = 200, .b = kYes, .b_dtype = DType::f16}}) {
    const std::vector<float> one = result(p, 1);
    for (int threads : {2, 3, 5}) EXPECT_TRUE(same_bits(one, result(p, threads))) << p << " threads=" << threads;
  }
}

/// The order of gemm.h in plain loops.
std::vector<float> in_order(const Problem& p) {
  const Operands o(p);
  const auto a = [&](int64_t i, int64_t k) {
    return p.a == kYes ? o.a.view.row<float>(k)[i] : o.a.view.row<float>(i)[k];
  };
  const auto b = [&](int64_t k, int64_t j) -> float {
    const int64_t row = p.b == kYes ? j : k, col = p.b == kYes ? k : j;
    if (p.b_dtype == DType::bf16) return to_float(o.b.view.row<BFloat16>(row)[col]);
    if (p.b_dtype == DType::f16) return to_float(o.b.view.row<Float16>(row)[col]);
    return o.b.view.row<float>(row)[col];
  };
  const auto alpha = static_cast<float>(p.alpha), beta = static_cast<float>(p.beta);
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      float& c = o.c.view.row<float>(i)[j];
      float sum = p.sum == Sum::chain && p.beta != 0 ? c : 0;
      for (int64_t k = 0; k < p.k; ++k) {
        sum = std::fma(a(i, k), b(k, j), sum);
        if (p.sum == Sum::chain || ((k + 1) % 384 != 0 && k + 1 != p.k)) continue;
        if (k < 384)
          c = p.beta == 0 ? alpha * sum : std::fma(beta, c, alpha * sum);
        else
          c += alpha * sum;
        sum = 0;
      }
      if (p.sum == Sum::chain) c = sum;
    }
  }
  const auto c = o.c.storage.as<float>();
  return {c.begin(), c.end()};
}

class GemmInOrder : public test::OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(GemmInOrder);

TEST_P(GemmInOrder, HasTheBitsOfPlainLoopsInEveryShapeAndKernel) {
  // Few rows and columns, whole and broken groups of rows; blocks of k that end early, at their end and behind it.
  for (int64_t m : {1, 2, 5, 12, 13, 50})
    for (int64_t n : {1, 8, 37, 112})
      for (int64_t k : {1, 64, 65, 385, 800})
        for (Transpose b : {kNo, kYes})
          for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
            const Problem p{.m = m,
                            .n = n,
                            .k = k,
                            .b = b,
                            .b_dtype = dtype,
                            .alpha = 0.75,
                            .beta = m % 2 ? 1 : -0.5,
                            .padding = 3};
            ASSERT_TRUE(same_bits(result(p, 2), in_order(p))) << p;
          }
}

TEST_P(GemmInOrder, ChainsHaveTheBitsOfPlainLoops) {
  for (int64_t m : {1, 8, 70})
    for (int64_t n : {8, 50})
      for (int64_t k : {1, 400, 1000})
        for (Transpose a : {kNo, kYes})
          for (double beta : {0.0, 1.0}) {
            const Problem p{.m = m, .n = n, .k = k, .a = a, .beta = beta, .sum = Sum::chain};
            ASSERT_TRUE(same_bits(result(p, 2), in_order(p))) << p;
            const Problem turned{.m = m, .n = n, .k = k, .b = kYes, .beta = beta, .sum = Sum::chain};
            ASSERT_TRUE(same_bits(result(turned, 2), in_order(turned))) << turned;
          }
}

TEST_P(GemmInOrder, HasTheBitsOfPlainLoopsAcrossBlocksOfRowsAndColumns) {
  // Rows and columns for more than one block of both, with a rest that is no whole tile; chains longer than a block.
  const int64_t m = 131, n = 797;
  for (const Problem& p :
       {Problem{.m = m, .n = n, .k = 390, .b = kYes, .b_dtype = DType::bf16, .alpha = 0.75, .beta = -0.5, .padding = 3},
        Problem{.m = m, .n = n, .k = 1024},  // rows that share sets of the caches are copied
        Problem{.m = m, .n = n, .k = 521, .a = kYes, .beta = 1, .padding = 3, .sum = Sum::chain}}) {
    const std::vector<float> expected = in_order(p);
    for (int threads : {1, 4}) EXPECT_TRUE(same_bits(result(p, threads), expected)) << p << " threads=" << threads;
  }
}

TEST(CpuGemm, AChainCutIntoCallsHasTheBitsOfOne) {
  for (const Problem& whole : {Problem{.m = 8, .n = 576, .k = 700, .a = kYes, .beta = 1, .sum = Sum::chain},
                               Problem{.m = 150, .n = 100, .k = 700, .a = kYes, .beta = 1, .sum = Sum::chain}}) {
    const std::vector<float> one = result(whole, 2);
    for (int64_t piece : {1, 30, 384, 512}) {
      const Operands operands(whole);
      for (int64_t begin = 0; begin < whole.k; begin += piece) {
        const int64_t end = std::min(whole.k, begin + piece);
        GemmArgs args = operands.args(whole);
        args.a = args.a.slice_rows(begin, end);
        args.b = args.b.slice_rows(begin, end);
        Arena scratch(std::max<int64_t>(64, cpu::gemm_scratch_bytes(args, 2)));
        gemm({.device = {}, .stream = {}, .kernels = kernels_for({}, "cpu"), .scratch = scratch, .threads = 2}, args);
      }
      const auto c = operands.c.storage.as<float>();
      EXPECT_TRUE(same_bits(one, {c.begin(), c.end()})) << whole << " in pieces of " << piece;
    }
  }
}

TEST(CpuGemm, GivesARowTheSameBitsWhateverItsNeighbours) {
  for (const auto& [n, k, b, dtype] : {std::tuple{576, 500, kYes, DType::f32},
                                       {70, 500, kNo, DType::f32},
                                       {6, 500, kYes, DType::f32},
                                       {90, 8, kNo, DType::f32},
                                       {100, 400, kYes, DType::bf16},
                                       {100, 400, kYes, DType::f16},
                                       {33, 1200, kNo, DType::bf16}}) {
    const Problem all{.m = 600, .n = n, .k = k, .b = b, .b_dtype = dtype, .beta = 1};
    const Operands operands(all), fresh(all);
    run(all, operands, "cpu", 2);
    for (int64_t first : {int64_t{0}, int64_t{7}, int64_t{500}}) {
      for (int64_t rows : {1, 2, 3, 4, 6, 8, 11, 12, 13, 40, 64, 65, 99}) {
        Problem some = all;
        some.m = rows;
        const Operands alone(some);
        const auto bytes = [&](int64_t width) { return static_cast<size_t>(rows * width) * sizeof(float); };
        std::memcpy(alone.a.view.row<float>(0), operands.a.view.row<float>(first), bytes(all.k));
        std::memcpy(alone.c.view.row<float>(0), fresh.c.view.row<float>(first), bytes(all.n));
        run(some, alone, "cpu", 1);
        EXPECT_EQ(std::memcmp(alone.c.view.row<float>(0), operands.c.view.row<float>(first), bytes(all.n)), 0)
            << some << " from row " << first;
      }
    }
  }
}

}  // namespace
}  // namespace tessera
