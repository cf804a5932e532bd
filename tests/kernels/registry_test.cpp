#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

TEST(Registry, TheCpuBackendIsTheDefault) {
  EXPECT_EQ(kernels_for({}).backend, "cpu");
  EXPECT_EQ(kernels_for({}, "reference").backend, "reference");
  EXPECT_EQ(kernels_for({}, "counting").backend, "counting");
}

TEST(Registry, SuggestsTheBackendThatWasMeant) {
  try {
    kernels_for({}, "refrence");
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.message(), "unknown backend \"refrence\"");
    EXPECT_EQ(error.hint(), "known backends: cpu, reference, counting\ndid you mean \"reference\"?");
  }
}

TEST(Registry, SaysThatCudaWasNotBuilt) {
  EXPECT_THROW(kernels_for({.kind = Device::Kind::cuda, .index = 0}), UserError);
  EXPECT_THROW(kernels_for({}, "cuda"), UserError);
}

TEST(Registry, EveryBackendFillsItsTable) {
  for (const char* backend : {"cpu", "reference", "counting"}) {
    const Kernels& table = kernels_for({}, backend);
    Kernels::visit([&](const char* name, auto op) { EXPECT_NE(table.*(op.of), nullptr) << backend << " " << name; });
  }
}

TEST(Registry, ListsEveryOp) {
  size_t count = 0;
  Kernels::visit([&](const char*, auto) { ++count; });
  EXPECT_EQ(sizeof(Kernels), sizeof(std::string_view) + count * sizeof(void (*)()))
      << "an op has no line in Kernels::visit";
}

/// The work of one step with a head: what a plan must foresee.
template <class F> void run_head(const Context& ctx, F&& allocate) {
  const TensorView hidden = allocate({700, 65}), weight = allocate({3000, 65}), nll = allocate({700}),
                   dhidden = allocate({700, 65});
  const TensorView dweight = allocate({3000, 65}), gain = allocate({65}), dgain = allocate({65}), inv = allocate({700});
  static const std::vector<int32_t> labels(700, 1);
  cross_entropy(ctx, {.hidden = hidden,
                      .weight = weight,
                      .labels = labels,
                      .nll = nll,
                      .best = {},
                      .dhidden = dhidden,
                      .dweight = dweight});
  cross_entropy(ctx, {.hidden = hidden,
                      .weight = weight,
                      .labels = labels,
                      .nll = nll,
                      .best = {},
                      .dhidden = dhidden,
                      .dweight = {}});
  rms_norm_backward(ctx, hidden, gain, inv, hidden, dhidden, dgain);
  const Tensor sum({1}, DType::f64);
  sum_of_squares(ctx, weight, sum);
  add_column_sums(ctx, weight, weight, gain);
  add_dot(ctx, weight, weight, {}, gain.slice_rows(0, 1));
}

TEST(Counting, PlansExactlyTheScratchThatTheCpuTakes) {
  expect_planned(
      [](const Context& ctx) { run_head(ctx, [&](Shape shape) { return ctx.scratch.allocate(shape, DType::f32); }); });
}

TEST(Gemm, ReferenceMultipliesSmallIntegersExactly) {
  const On reference("reference");
  for (const Transpose ta : {Transpose::no, Transpose::yes}) {
    for (const Transpose tb : {Transpose::no, Transpose::yes}) {
      const int64_t m = 3, n = 4, k = 5;
      Matrix a = ta == Transpose::no ? Matrix(m, k, DType::f64, 1) : Matrix(k, m, DType::f64, 1);
      Matrix b = tb == Transpose::no ? Matrix(k, n, DType::bf16, 2) : Matrix(n, k, DType::bf16, 2);
      Matrix c(m, n, DType::f64, 3);
      for (int64_t i = 0; i < m * k; ++i) a.set(i / a.cols(), i % a.cols(), static_cast<double>(i % 7) - 3);
      for (int64_t i = 0; i < k * n; ++i) b.set(i / b.cols(), i % b.cols(), static_cast<double>(i % 5) - 2);
      for (int64_t i = 0; i < m * n; ++i) c.set(i / n, i % n, static_cast<double>(i));
      gemm(reference,
           {.a = a.view(), .a_transpose = ta, .b = b.view(), .b_transpose = tb, .c = c, .alpha = 2, .beta = -1});
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (int64_t p = 0; p < k; ++p)
            sum += (ta == Transpose::no ? a.at(i, p) : a.at(p, i)) * (tb == Transpose::no ? b.at(p, j) : b.at(j, p));
          EXPECT_EQ(c.at(i, j), 2 * sum - static_cast<double>(i * n + j));
        }
      EXPECT_TRUE(c.is_padding_untouched());
    }
  }
}

TEST(Gemm, BetaZeroIgnoresWhatWasThere) {
  const Matrix a = Matrix::zeros(2, 2, DType::f64), b = Matrix::zeros(2, 2, DType::f64);
  Matrix c(2, 2, DType::f64);
  c.set(0, 0, std::nan(""));
  gemm(On("reference"), {.a = a.view(), .b = b.view(), .c = c});
  EXPECT_EQ(c.at(0, 0), 0);
}

TEST(Gemm, NamesTheOperandOfTheWrongShape) {
  const Matrix a = Matrix::zeros(2, 3, DType::f32), b = Matrix::zeros(4, 5, DType::f32),
               c = Matrix::zeros(2, 5, DType::f32);
  try {
    gemm(On("reference"), {.a = a.view(), .b = b.view(), .c = c});
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("gemm: b is [4, 5], expected [3, 5]"));
  }
}

}  // namespace
}  // namespace tessera::test
