// Every sum along a row has one order, which cpu/lanes-inl.h and docs/determinism.md state: bit for bit the plain loops
// here, on every instruction set of this machine and for any number of threads.

#include "kernels/one_order.h"

namespace tessera::test {
namespace {

constexpr float kTemperature = 2;
constexpr double kEps = 1e-5;

TEST_F(OneOrder, ThereIsMoreThanOneTarget) {
#ifdef __x86_64__
  EXPECT_THAT(targets(), testing::Contains("scalar"));
#else
  EXPECT_FALSE(targets().empty());
#endif
}

float plain_inverse(const float* x, int64_t n) {
  const float squares = sixteen_lanes<float>(n, [&](int64_t i, float s) { return std::fma(x[i], x[i], s); });
  return static_cast<float>(1 / std::sqrt(static_cast<double>(squares) / static_cast<double>(n) + kEps));
}

TEST_F(OneOrder, RmsNorm) {
  for (const int64_t dim : lengths()) {
    const int64_t rows = rows_of(dim);
    const Matrix x = Matrix::random(rows, dim, DType::f32, 1, 3, 1), weight = Matrix::random(1, dim, DType::f32, 2);
    Numbers want;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < dim; ++c) want.push_back(row(x, r)[c] * plain_inverse(row(x, r), dim) * row(weight)[c]);
    for (int64_t r = 0; r < rows; ++r) want.push_back(plain_inverse(row(x, r), dim));
    expect_everywhere(want, [&](const On& on) {
      const Matrix y(rows, dim, DType::f32, 3), inv(1, rows, DType::f32);
      rms_norm(on, x.view(), weight.vector(), kEps, y, inv.vector());
      Numbers got;
      append(got, y);
      append(got, inv);
      return got;
    });
  }
}

/// Two chunks of logits through the online softmax.
TEST_F(OneOrder, SoftmaxChunks) {
  for (const int64_t cols : lengths()) {
    const int64_t rows = rows_of(cols);
    const Matrix first = Matrix::random(rows, cols, DType::f32, 1, 8, 1),
                 second = Matrix::random(rows, cols, DType::f32, 2, 9);
    const std::vector<int32_t> labels(static_cast<size_t>(rows), 3);
    const auto found = [&](const Context& ctx) {
      const Matrix max(1, rows, DType::f32), sum(1, rows, DType::f32), target(1, rows, DType::f32),
          rescale(1, rows, DType::f32);
      std::vector<int32_t> best(static_cast<size_t>(rows));
      const SoftmaxRows state{max.vector(), sum.vector(), target.vector(), rescale.vector(), best};
      ctx.kernels.softmax_begin(ctx, state);
      Numbers numbers;
      int64_t begin = 0;
      for (const Matrix* logits : {&first, &second}) {
        const Matrix e = logits->copy();
        ctx.kernels.softmax_chunk(ctx, {.logits = e, .vocab_begin = begin, .labels = labels, .rows = state});
        begin += cols;
        append(numbers, e);
        append(numbers, rescale);
        append(numbers, sum);
      }
      append(numbers, max);
      return numbers;
    };
    const Numbers want = found(On("cpu"));
    // The sums, from the exponentials and factors that are told.
    const auto part = [&](int64_t chunk, int64_t r) { return want.data() + chunk * rows * (cols + 2) + r * cols; };
    const auto told = [&](int64_t chunk, int64_t which, int64_t r) {
      return static_cast<float>(want[static_cast<size_t>(chunk * rows * (cols + 2) + rows * (cols + which) + r)]);
    };
    for (int64_t r = 0; r < rows; ++r) {
      float sum = 0;
      for (const int64_t chunk : {0, 1}) {
        const double* e = part(chunk, r);
        sum = sum * told(chunk, 0, r) +
              sixteen_lanes<float>(cols, [&](int64_t i, float s) { return s + static_cast<float>(e[i]); });
        ASSERT_EQ(told(chunk, 1, r), sum) << "chunk " << chunk << " of row " << r;
      }
    }
    expect_everywhere(want, [&](const On& on) { return found(on); });
  }
}

TEST_F(OneOrder, DistillChunk) {
  for (const int64_t cols : lengths()) {
    const int64_t rows = rows_of(cols);
    const Matrix student = Matrix::random(rows, cols, DType::f32, 1, 8, 1),
                 teacher = Matrix::random(rows, cols, DType::f32, 2, 7);
    const auto found = [&](const Context& ctx) {
      std::vector<Matrix> v;
      for (int i = 0; i < 7; ++i) v.emplace_back(1, rows, DType::f32);
      const DistillRows state{.student = {v[0].vector(), v[1].vector(), v[2].vector()},
                              .teacher = {v[3].vector(), v[4].vector(), v[5].vector()},
                              .cross = v[6].vector()};
      ctx.kernels.distill_begin(ctx, state);
      const Matrix e_t = teacher.copy(), e_s(rows, cols, DType::f32);
      ctx.kernels.distill_chunk(
          ctx,
          {.student = student.view(), .teacher = e_t, .student_exp = e_s, .temperature = kTemperature, .rows = state});
      Numbers numbers;
      for (const Matrix* x : {&e_s, &e_t}) append(numbers, *x);
      for (const int i : {1, 4, 6}) append(numbers, v[static_cast<size_t>(i)]);
      return numbers;
    };
    const Numbers want = found(On("cpu"));
    for (int64_t r = 0; r < rows; ++r) {
      const auto e = [&](int64_t model, int64_t i) {
        return static_cast<float>(want[static_cast<size_t>((model * rows + r) * cols + i)]);
      };
      const auto sum = [&](int64_t which) { return want[static_cast<size_t>(2 * rows * cols + which * rows + r)]; };
      const float *s = row(student, r), *t = row(teacher, r);
      const float s_max = *std::max_element(s, s + cols), t_max = *std::max_element(t, t + cols);
      for (const int64_t model : {0, 1})
        ASSERT_EQ(sum(model), sixteen_lanes<float>(cols, [&](int64_t i, float lane) { return lane + e(model, i); }));
      ASSERT_EQ(sum(2), sixteen_lanes<float>(cols, [&](int64_t i, float lane) {
                  const float a_s = (s[i] - s_max) * (1 / kTemperature), a_t = (t[i] - t_max) * (1 / kTemperature);
                  return std::fma(e(1, i), a_t - a_s, lane);
                }));
    }
    expect_everywhere(want, [&](const On& on) { return found(on); });
  }
}

TEST_F(OneOrder, TailLoss) {
  for (const int64_t dim : lengths()) {
    const int64_t tokens = rows_of(dim);
    const Matrix student = Matrix::random(tokens, dim, DType::f32, 1, 2, 1),
                 teacher = Matrix::random(tokens, dim, DType::f32, 2, 2),
                 start = Matrix::random(tokens, dim, DType::f32, 3);
    std::vector<int32_t> rows;
    for (int32_t r = 1; r < tokens; ++r) rows.push_back(r);
    const double count = static_cast<double>(dim), grad_scale = 0.75;
    Numbers want;
    Matrix gradient = start.copy();
    for (const int32_t r : rows) {
      const float *s = row(student, r), *t = row(teacher, r), s_inv = plain_inverse(s, dim),
                  t_inv = plain_inverse(t, dim);
      const auto e = [&](int64_t i) { return s[i] * s_inv - t[i] * t_inv; };
      const float along = sixteen_lanes<float>(
                      dim, [&](int64_t i, float lane) { return std::fma(e(i), s[i] * s_inv, lane); }),
                  squares =
                      sixteen_lanes<float>(dim, [&](int64_t i, float lane) { return std::fma(e(i), e(i), lane); });
      const auto scale = static_cast<float>(grad_scale * 2 / count * static_cast<double>(s_inv)),
                 mean = static_cast<float>(static_cast<double>(along) / count);
      for (int64_t i = 0; i < dim; ++i)
        gradient.set(r, i, std::fma(scale, std::fma(-(s[i] * s_inv), mean, e(i)), row(start, r)[i]));
      want.push_back(0.5 + static_cast<double>(squares) / count);
    }
    append(want, gradient);
    expect_everywhere(want, [&](const On& on) {
      Numbers losses(rows.size(), 0.5);
      const Matrix dstudent = start.copy();
      tail_loss(on, {.student = student.view(),
                     .teacher = teacher.view(),
                     .rows = rows,
                     .eps = kEps,
                     .grad_scale = grad_scale,
                     .loss = losses,
                     .dstudent = dstudent});
      append(losses, dstudent);
      return losses;
    });
  }
}

TEST_F(OneOrder, SumsOfAllElements) {
  constexpr int64_t kBlock = 16'384;
  std::vector<int64_t> counts = lengths();
  counts.insert(counts.end(), {kBlock - 1, kBlock, kBlock + 1, 2 * kBlock + 5, 7 * kBlock + 4099});
  for (const int64_t count : counts) {
    const Matrix x = Matrix::random(1, count, DType::f32, 1, 3), a = Matrix::random(1, count, DType::f32, 2),
                 b = Matrix::random(1, count, DType::f32, 3);
    const auto blocks = [&](auto&& second) {
      double sum = 0;
      for (int64_t begin = 0; begin < count; begin += kBlock)
        sum += sixteen_lanes<double>(std::min(kBlock, count - begin), [&](int64_t i, double lane) {
          return std::fma(static_cast<double>(row(x)[begin + i]), static_cast<double>(second(begin + i)), lane);
        });
      return sum;
    };
    const Numbers want{blocks([&](int64_t i) { return row(x)[i]; }),
                       static_cast<float>(0.5 + blocks([&](int64_t i) { return row(a)[i]; })),
                       static_cast<float>(0.5 + blocks([&](int64_t i) { return row(a)[i] - row(b)[i]; }))};
    expect_everywhere(want, [&](const On& on) {
      Numbers sums{0};
      std::vector<float> dots{0.5f, 0.5f};
      const TensorView to(dots.data(), {2}, DType::f32);
      sum_of_squares(on, x.vector(), sums);
      add_dot(on, x.vector(), a.vector(), {}, to.slice_rows(0, 1));
      add_dot(on, x.vector(), a.vector(), b.vector(), to.slice_rows(1, 2));
      sums.insert(sums.end(), dots.begin(), dots.end());
      return sums;
    });
  }
}

/// A lane holds a sixteenth of the numbers: an error is at most that many roundings of the sum of sizes, and four more.
TEST_F(OneOrder, SumsAlongARowAreNearTheTruth) {
  for (const int64_t n : {577, 4099, 16'384}) {
    const Matrix x = Matrix::random(2, n, DType::f32, 1, 3), weight = Matrix::random(1, n, DType::f32, 2),
                 y(2, n, DType::f32), inv(1, 2, DType::f32);
    rms_norm(On("cpu"), x.view(), weight.vector(), kEps, y, inv.vector());
    Numbers sums{0};
    sum_of_squares(On("cpu"), x.view().slice_rows(0, 1).reshape({n}), sums);
    long double truth = 0;
    for (int64_t i = 0; i < n; ++i) truth += static_cast<long double>(row(x)[i]) * static_cast<long double>(row(x)[i]);
    const double roundings = static_cast<double>(n) / 16 + 5, squares = static_cast<double>(truth);
    EXPECT_NEAR(sums[0], squares, roundings * 0x1p-53 * squares);
    const double want = 1 / std::sqrt(squares / static_cast<double>(n) + kEps);
    EXPECT_NEAR(row(inv)[0], want, (roundings / 2 + 1) * kUnit * want);
  }
}

/// Zeros of either sign, products that vanish from below, NaN: neither width nor padding shows.
TEST_F(OneOrder, ZerosAndWhatIsNotANumber) {
  for (const double value : {-0.0, -1e-30, -1e-44, std::nan(""), -HUGE_VAL})
    for (const int64_t dim : {1, 5, 15, 20, 33}) {
      Matrix x = Matrix::zeros(3, dim, DType::f32), y = Matrix::zeros(3, dim, DType::f32);
      for (int64_t r = 0; r < 3; ++r)
        for (int64_t c = 0; c < dim; ++c) x.set(r, c, value), y.set(r, c, 1e-30);
      const auto found = [&](const On& on) {
        const Matrix dx = Matrix::zeros(3, dim, DType::f32), inv = Matrix::random(1, 3, DType::f32, 1),
                     dweight = Matrix::zeros(1, dim, DType::f32), norm(3, dim, DType::f32);
        rms_norm(on, x.view(), y.view().slice_rows(0, 1).reshape({dim}), kEps, norm, inv.vector());
        rms_norm_backward(on, x.view(), y.view().slice_rows(0, 1).reshape({dim}), inv.vector(), y.view(), dx,
                          dweight.vector());
        Numbers sums(1);
        std::vector<float> dot{-0.0f};
        sum_of_squares(on, x.vector(), sums);
        add_dot(on, x.vector(), y.vector(), {}, TensorView(dot.data(), {1}, DType::f32));
        sums.push_back(dot[0]);
        for (const Matrix* m : {&dx, &inv, &dweight, &norm}) append(sums, *m);
        return sums;
      };
      use_cpu_target("scalar");
      expect_everywhere(found(On("cpu")), found);
    }
}

}  // namespace
}  // namespace tessera::test
