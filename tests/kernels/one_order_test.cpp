// Every sum has one order, which the headers state: bit for bit the plain loops below, on every instruction set of this
// machine, for any number of threads, and for rows that come in several calls.

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "harness.h"
#include "kernels/cpu_target.h"

namespace tessera::test {
namespace {

constexpr float kTemperature = 2;
constexpr double kEps = 1e-5;

/// Those of this machine.
const std::vector<std::string>& targets() {
  static const std::vector<std::string> found = [] {
    std::vector<std::string> names;
    for (const std::string& name : cpu_target_choices()) try {
        use_cpu_target(name);
        if (name != "auto") names.push_back(name);
      } catch (const UserError&) {  // this machine has none
      }
    use_cpu_target("auto");
    return names;
  }();
  return found;
}

std::vector<int64_t> lengths() {
  std::vector<int64_t> all = kLengths;
  all.push_back(4099);
  return all;
}
/// Enough rows for several threads.
int64_t rows_of(int64_t length) { return 3 + 20'000 / length; }

/// The order of a sum along a row (cpu/lanes-inl.h): step(i, lane) is the lane behind element i.
template <class T, class Step> T sixteen_lanes(int64_t n, Step&& step) {
  T lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % 16] = step(i, lanes[i % 16]);
  for (int half = 8; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return lanes[0] + T{0};
}

/// What an op left. f32 widens exactly; every NaN is one value, and −0 is not +0.
using Numbers = std::vector<double>;
std::vector<uint64_t> bits(const Numbers& numbers) {
  std::vector<uint64_t> all;
  for (const double x : numbers) all.push_back(std::isnan(x) ? 1 : std::bit_cast<uint64_t>(x));
  return all;
}
void append(Numbers& numbers, const Matrix& x) {
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t c = 0; c < x.cols(); ++c) numbers.push_back(x.at(r, c));
}

/// `op` gives these numbers everywhere.
template <class Op> void expect_everywhere(const Numbers& want, Op&& op) {
  const std::vector<uint64_t> wanted = bits(want);
  for (const std::string& target : targets()) {
    use_cpu_target(target);
    for (const int threads : {1, 2, 3, 7}) {
      const std::vector<uint64_t> got = bits(op(On("cpu", threads)));
      ASSERT_EQ(got.size(), wanted.size());
      const auto at = std::mismatch(got.begin(), got.end(), wanted.begin()).first - got.begin();
      if (at < static_cast<int64_t>(got.size()))
        FAIL() << target << ", " << threads << " threads: number " << at << " of " << got.size() << " is "
               << std::bit_cast<double>(got[at]) << ", not " << want[at];
    }
  }
}

class OneOrder : public testing::Test {
 protected:
  void TearDown() override { use_cpu_target("auto"); }
};

const float* row(const Matrix& x, int64_t r = 0) { return ConstView(x.view()).row<float>(r); }

TEST_F(OneOrder, ThereIsMoreThanOneTarget) {
#if HWY_ARCH_X86
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

/// A norm's backward pass, its rows in pieces.
struct NormGradients {
  int64_t rows, dim;
  Matrix x = Matrix::random(rows, dim, DType::f32, 1, 2, 1), weight = Matrix::random(1, dim, DType::f32, 2),
         dy = Matrix::random(rows, dim, DType::f32, 3), inv = Matrix::random(1, rows, DType::f32, 4),
         dx = Matrix::random(rows, dim, DType::f32, 5), dweight = Matrix::random(1, dim, DType::f32, 6);

  Numbers plain() const {
    Numbers numbers;
    for (int64_t r = 0; r < rows; ++r) {
      const float *in = row(x, r), *dout = row(dy, r), factor = row(inv)[r];
      const float dot =
          sixteen_lanes<float>(dim, [&](int64_t i, float s) { return std::fma(dout[i] * row(weight)[i], in[i], s); });
      const float mean = dot * factor / static_cast<float>(dim);
      for (int64_t c = 0; c < dim; ++c) {
        const float n = in[c] * factor, g = dout[c] * row(weight)[c];
        numbers.push_back(std::fma(factor, std::fma(-n, mean, g), row(dx, r)[c]));
      }
    }
    for (int64_t c = 0; c < dim; ++c) {
      float sum = row(dweight)[c];
      for (int64_t r = 0; r < rows; ++r) sum = std::fma(row(dy, r)[c], row(x, r)[c] * row(inv)[r], sum);
      numbers.push_back(sum);
    }
    return numbers;
  }
  Numbers found(const Context& ctx, int64_t at_once) const {
    const Matrix to = dx.copy(), sums = dweight.copy();
    for (int64_t r = 0; r < rows; r += at_once) {
      const int64_t end = std::min(r + at_once, rows);
      rms_norm_backward(ctx, x.view().slice_rows(r, end), weight.vector(), inv.vector().slice_rows(r, end),
                        dy.view().slice_rows(r, end), to.view().slice_rows(r, end), sums.vector());
    }
    Numbers numbers;
    append(numbers, to);
    append(numbers, sums);
    return numbers;
  }
};

TEST_F(OneOrder, RmsNormBackwardHoweverItsRowsAreCut) {
  for (const int64_t dim : lengths()) {
    const NormGradients norm{rows_of(dim), dim};
    const Numbers want = norm.plain();
    expect_everywhere(want, [&](const On& on) { return norm.found(on, norm.rows); });
    for (const int64_t at_once : {1, 2, 77}) EXPECT_EQ(bits(norm.found(On("cpu", 2), at_once)), bits(want)) << at_once;
  }
}

TEST_F(OneOrder, ColumnSumsHoweverTheirRowsAreCut) {
  for (const int64_t dim : lengths())
    for (const bool products : {false, true}) {
      const int64_t rows = rows_of(dim);
      const Matrix x = Matrix::random(rows, dim, DType::f32, 1, 1, 2), y = Matrix::random(rows, dim, DType::f32, 2),
                   before = Matrix::random(1, dim, DType::f32, 3);
      Numbers want;
      for (int64_t c = 0; c < dim; ++c) {
        float sum = row(before)[c];
        for (int64_t r = 0; r < rows; ++r)
          sum = products ? std::fma(row(x, r)[c], row(y, r)[c], sum) : sum + row(x, r)[c];
        want.push_back(sum);
      }
      const auto found = [&](const Context& ctx, int64_t at_once) {
        const Matrix sums = before.copy();
        for (int64_t r = 0; r < rows; r += at_once) {
          const int64_t end = std::min(r + at_once, rows);
          add_column_sums(ctx, x.view().slice_rows(r, end),
                          products ? ConstView(y.view().slice_rows(r, end)) : ConstView(), sums.vector());
        }
        Numbers numbers;
        append(numbers, sums);
        return numbers;
      };
      expect_everywhere(want, [&](const On& on) { return found(on, rows); });
      for (const int64_t at_once : {1, 2, 77}) EXPECT_EQ(bits(found(On("cpu", 2), at_once)), bits(want)) << at_once;
    }
}

/// A chain over 100,000 rows in f32 is as near to f64 as its length allows, and in fact far nearer.
TEST_F(OneOrder, ALongChainOverRowsIsNearTheTruth) {
  const int64_t rows = 100'000, dim = 17;
  const Matrix x = Matrix::random(rows, dim, DType::f32, 1), y = Matrix::random(rows, dim, DType::f32, 2),
               sums = Matrix::zeros(1, dim, DType::f32);
  add_column_sums(On("cpu", 2), x.view(), y.view(), sums.vector());
  for (int64_t c = 0; c < dim; ++c) {
    double truth = 0, squares = 0, size = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const double product = static_cast<double>(row(x, r)[c]) * static_cast<double>(row(y, r)[c]);
      truth += product, squares += product * product, size += std::abs(product);
    }
    EXPECT_NEAR(row(sums)[c], truth, static_cast<double>(rows) * kUnit * size);
    EXPECT_NEAR(row(sums)[c], truth, 1e-4 * std::sqrt(squares));
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

TEST_F(OneOrder, CalibrationSumsHoweverTheirRowsAreCut) {
  for (const int64_t dim : lengths()) {
    const int64_t tokens = rows_of(dim);
    const Matrix x = Matrix::random(tokens, dim, DType::f32, 1, 2, 1), y = Matrix::random(tokens, dim, DType::f32, 2);
    std::vector<int32_t> rows;
    for (int32_t r = 1; r < tokens; ++r) rows.push_back(r);
    Numbers want{0.125};
    for (const int32_t r : rows) {
      const auto dot = [&](const float* a, const float* b) {
        return sixteen_lanes<double>(dim, [&](int64_t i, double lane) {
          return std::fma(static_cast<double>(a[i]), static_cast<double>(b[i]), lane);
        });
      };
      const float *a = row(x, r), *b = row(y, r);
      want[0] += dot(a, b) / (std::sqrt(dot(a, a)) * std::sqrt(dot(b, b)));
    }
    for (int64_t c = 0; c < dim; ++c) {
      double sum = 0;
      for (const int32_t r : rows) sum += static_cast<double>(row(x, r)[c]) * static_cast<double>(row(x, r)[c]);
      want.push_back(sum);
    }
    const auto found = [&](const Context& ctx, size_t at_once) {
      Numbers sums(want.size());
      sums[0] = 0.125;
      const TensorView all(sums.data(), {dim + 1}, DType::f64);
      for (size_t i = 0; i < rows.size(); i += at_once) {
        const auto some = std::span(rows).subspan(i, std::min(at_once, rows.size() - i));
        add_cosines(ctx, x.view(), y.view(), some, all.slice_rows(0, 1));
        add_column_squares(ctx, x.view(), some, all.slice_rows(1, dim + 1));
      }
      return sums;
    };
    expect_everywhere(want, [&](const On& on) { return found(on, rows.size()); });
    for (const size_t at_once : {1, 2, 77}) EXPECT_EQ(bits(found(On("cpu", 2), at_once)), bits(want)) << at_once;
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

/// Of width 1, so that a logit is one product and has one value whatever multiplies.
struct Head {
  static constexpr int64_t kRows = 1100, kVocabulary = 2 * kChunkColumns + 70;
  Matrix hidden = Matrix::random(kRows, 1, DType::f32, 1, 4), weight = Matrix::random(kVocabulary, 1, DType::f32, 2, 4);
  std::vector<int32_t> labels;

  Head() {
    for (int64_t n = 0; n < kRows; ++n)
      labels.push_back(static_cast<int32_t>(mix64(static_cast<uint64_t>(n)) % kVocabulary));
  }
  /// nll and the gradient of the hidden states, so many rows at once.
  Numbers scores(const Context& ctx, int64_t at_once) const {
    const Matrix nll(1, kRows, DType::f32), dhidden(kRows, 1, DType::f32);
    for (int64_t n = 0; n < kRows; n += at_once) {
      const int64_t end = std::min(n + at_once, kRows);
      cross_entropy(ctx, {.hidden = hidden.view().slice_rows(n, end),
                          .weight = weight.view(),
                          .labels = std::span(labels).subspan(n, end - n),
                          .nll = nll.vector().slice_rows(n, end),
                          .best = {},
                          .dhidden = dhidden.view().slice_rows(n, end),
                          .dweight = {}});
    }
    Numbers numbers;
    append(numbers, nll);
    append(numbers, dhidden);
    return numbers;
  }
};

TEST_F(OneOrder, ARowsLossDoesNotHangOnTheRowsBeside) {
  const Head head;
  const auto losses = [&](int64_t at_once) {
    Numbers numbers = head.scores(On("cpu", 2), at_once);
    numbers.resize(Head::kRows);
    return bits(numbers);
  };
  const std::vector<uint64_t> all = losses(Head::kRows);
  for (const int64_t at_once : {1, 2, 70, 1024}) EXPECT_TRUE(losses(at_once) == all) << at_once << " rows at once";
}

/// As far as products of so many rows are formed alike.
TEST_F(OneOrder, NorDoesItsGradient) {
  const Head head;
  const std::vector<uint64_t> all = bits(head.scores(On("cpu", 2), Head::kRows));
  for (const int64_t at_once : {100, 1024})
    EXPECT_TRUE(bits(head.scores(On("cpu", 3), at_once)) == all) << at_once << " rows at once";
}

TEST_F(OneOrder, AWeightThatIsMadeInTilesGivesTheLossOfAStoredOne) {
  const Head head;
  const auto losses = [&](int64_t tile) {
    const Matrix nll(1, Head::kRows, DType::f32);
    CrossEntropyArgs args{.hidden = head.hidden.view(),
                          .weight = {},
                          .labels = head.labels,
                          .nll = nll.vector(),
                          .best = {},
                          .dhidden = {},
                          .dweight = {},
                          .weight_rows = [&](int64_t begin, int64_t end) -> ConstView {
                            EXPECT_LE(end - begin, tile == 0 ? kChunkColumns : tile);
                            return head.weight.view().slice_rows(begin, end);
                          },
                          .vocab = Head::kVocabulary,
                          .tile = tile};
    cross_entropy(On("cpu"), args);
    Numbers numbers;
    append(numbers, nll);
    return bits(numbers);
  };
  std::vector<uint64_t> stored = bits(head.scores(On("cpu"), Head::kRows));
  stored.resize(Head::kRows);
  for (const int64_t tile : {0, 64, 500, 5000}) EXPECT_EQ(losses(tile), stored) << tile;
}

}  // namespace
}  // namespace tessera::test
