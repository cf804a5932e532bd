// Sums over rows go on from what is there, one row after the other: neither threads, nor instruction sets, nor how rows
// are cut into calls show. And a row's own numbers do not hang on the rows beside it.

#include "kernels/one_order.h"

namespace tessera::test {
namespace {

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

/// With room for the logits of a thousand rows.
struct Roomy {
  explicit Roomy(int threads)
      : ctx{.device = {}, .stream = {}, .kernels = kernels_for({}, "cpu"), .scratch = scratch, .threads = threads} {}
  Arena scratch{int64_t{16} << 20};
  Context ctx;
};

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
    Numbers numbers = head.scores(Roomy(2).ctx, at_once);
    numbers.resize(Head::kRows);
    return bits(numbers);
  };
  const std::vector<uint64_t> all = losses(Head::kRows);
  for (const int64_t at_once : {1, 2, 70, 1024}) EXPECT_TRUE(losses(at_once) == all) << at_once << " rows at once";
}

/// As far as products of so many rows are formed alike.
TEST_F(OneOrder, NorDoesItsGradient) {
  const Head head;
  const std::vector<uint64_t> all = bits(head.scores(Roomy(2).ctx, Head::kRows));
  for (const int64_t at_once : {100, 1024})
    EXPECT_TRUE(bits(head.scores(Roomy(3).ctx, at_once)) == all) << at_once << " rows at once";
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
    cross_entropy(Roomy(1).ctx, args);
    Numbers numbers;
    append(numbers, nll);
    return bits(numbers);
  };
  std::vector<uint64_t> stored = bits(head.scores(Roomy(1).ctx, Head::kRows));
  stored.resize(Head::kRows);
  for (const int64_t tile : {0, 64, 500, 5000}) EXPECT_EQ(losses(tile), stored) << tile;
}

}  // namespace
}  // namespace tessera::test
