#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

enum class Weight { frozen, trained };

/// A problem and the outputs of one call.
struct Problem {
  Matrix hidden, weight;
  std::vector<int32_t> labels;
  double grad_scale = 1;
  Matrix nll, dhidden, dweight, dweight_before;
  std::vector<int32_t> best;

  Problem(int64_t rows, int64_t dim, int64_t vocab, DType compute, DType stored, double range = 1)
      : hidden(Matrix::random(rows, dim, compute, 1, range, 2)),
        weight(Matrix::random(vocab, dim, stored, 2, range)),
        nll(1, rows, compute),
        dhidden(rows, dim, compute, 3),
        dweight(Matrix::random(vocab, dim, compute, 3)),
        dweight_before(dweight.copy()),
        best(static_cast<size_t>(rows)) {
    for (int64_t n = 0; n < rows; ++n)
      labels.push_back(static_cast<int32_t>(mix64(static_cast<uint64_t>(n)) % static_cast<uint64_t>(vocab)));
  }
  CrossEntropyArgs args(Weight mode, int64_t chunk = 0) {
    return {.hidden = hidden.view(),
            .weight = weight.view(),
            .labels = labels,
            .grad_scale = grad_scale,
            .nll = nll.vector(),
            .best = best,
            .dhidden = dhidden,
            .dweight = mode == Weight::trained ? dweight.view() : TensorView(),
            .chunk = chunk};
  }
};

/// Naive log-softmax in f64 with all logits in memory.
struct Truth {
  std::vector<double> nll;
  std::vector<int32_t> best;
  Matrix dhidden, dweight;

  explicit Truth(const Problem& p)
      : dhidden(Matrix::zeros(p.hidden.rows(), p.hidden.cols(), DType::f64)), dweight(p.dweight_before.as(DType::f64)) {
    const int64_t vocab = p.weight.rows(), dim = p.hidden.cols();
    for (int64_t n = 0; n < p.hidden.rows(); ++n) {
      std::vector<double> logits(static_cast<size_t>(vocab));
      for (int64_t j = 0; j < vocab; ++j)
        for (int64_t k = 0; k < dim; ++k) logits[j] += p.hidden.at(n, k) * p.weight.at(j, k);
      const auto top = std::max_element(logits.begin(), logits.end());
      best.push_back(static_cast<int32_t>(top - logits.begin()));
      double sum = 0;
      for (const double logit : logits) sum += std::exp(logit - *top);
      nll.push_back(*top + std::log(sum) - logits[p.labels[n]]);
      for (int64_t j = 0; j < vocab; ++j) {
        const double g = p.grad_scale * (std::exp(logits[j] - *top) / sum - (j == p.labels[n] ? 1 : 0));
        for (int64_t k = 0; k < dim; ++k) {
          dhidden.set(n, k, dhidden.at(n, k) + g * p.weight.at(j, k));
          dweight.set(j, k, dweight.at(j, k) + g * p.hidden.at(n, k));
        }
      }
    }
  }
};

void expect_truth(const Problem& p, Weight mode, double tolerance) {
  const Truth truth(p);
  for (size_t n = 0; n < truth.nll.size(); ++n)
    ASSERT_NEAR(p.nll.at(0, static_cast<int64_t>(n)), truth.nll[n], tolerance * (1 + std::abs(truth.nll[n])));
  EXPECT_EQ(p.best, truth.best);
  expect_within(p.dhidden, truth.dhidden, [&](int64_t, int64_t) { return tolerance * (1 + p.grad_scale); });
  if (mode == Weight::trained)
    expect_within(p.dweight, truth.dweight, [&](int64_t, int64_t) { return tolerance * (1 + p.grad_scale); });
}

TEST(CrossEntropy, EqualsNaiveLogSoftmaxWhateverTheChunk) {
  const On reference("reference");
  for (const int64_t vocab : {1, 63, 64, 65, 1000}) {
    for (const int64_t chunk : {0, 1, 64, 100}) {
      if (vocab == 1000 && chunk == 1) continue;
      for (const Weight mode : {Weight::frozen, Weight::trained}) {
        Problem p(9, 5, vocab, DType::f64, DType::f64, 2);
        p.grad_scale = 0.25;
        p.labels[0] = 0;  // at the borders of chunks
        p.labels[1] = static_cast<int32_t>(vocab - 1);
        p.labels[2] = static_cast<int32_t>(std::min<int64_t>(63, vocab - 1));
        p.labels[3] = static_cast<int32_t>(std::min<int64_t>(64, vocab - 1));
        cross_entropy(reference, p.args(mode, chunk));
        SCOPED_TRACE(fmt::format("vocabulary {}, chunk {}", vocab, chunk));
        expect_truth(p, mode, 1e-13);
      }
    }
  }
}

TEST(CrossEntropy, TakesManyRowsInBlocks) {
  const On reference("reference");
  for (const Weight mode : {Weight::frozen, Weight::trained}) {
    Problem p(2500, 2, 7, DType::f64, DType::f64);
    cross_entropy(reference, p.args(mode, 3));
    expect_truth(p, mode, 1e-11);
  }
}

TEST(CrossEntropy, CpuAgreesForEveryStorageType) {
  for (const DType stored : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t chunk : {0, 64}) {
      for (const Weight mode : {Weight::frozen, Weight::trained}) {
        Problem p(17, 33, 300, DType::f32, stored, 0.5);
        cross_entropy(On("cpu", 2), p.args(mode, chunk));
        // Logits of 33 products up to 1/4 are off by 33 units of 3, probabilities by as much, sums of 300 of them by
        // less.
        expect_truth(p, mode, 33 * 4 * kUnit);
      }
    }
  }
}

TEST(CrossEntropy, ThreadsDoNotChangeABit) {
  for (const Weight mode : {Weight::frozen, Weight::trained}) {
    Problem one(70, 40, 1000, DType::f32, DType::f32);
    cross_entropy(On("cpu", 1), one.args(mode, 256));
    for (const int threads : {2, 3}) {
      Problem more(70, 40, 1000, DType::f32, DType::f32);
      cross_entropy(On("cpu", threads), more.args(mode, 256));
      EXPECT_TRUE(more.nll.equals_bitwise(one.nll));
      EXPECT_TRUE(more.dhidden.equals_bitwise(one.dhidden));
      EXPECT_TRUE(more.dweight.equals_bitwise(one.dweight));
      EXPECT_EQ(more.best, one.best);
    }
  }
}

TEST(GradCheck, CrossEntropy) {
  const On reference("reference");
  for (const Weight mode : {Weight::frozen, Weight::trained}) {
    Problem p(4, 3, 11, DType::f64, DType::f64, 2), probe(4, 3, 11, DType::f64, DType::f64, 2);
    p.grad_scale = 0.5;
    p.dweight = Matrix::zeros(11, 3, DType::f64);
    cross_entropy(reference, p.args(mode, 4));
    const auto loss = [&] {
      CrossEntropyArgs args = probe.args(Weight::frozen, 4);
      args.dhidden = {};
      cross_entropy(reference, args);
      double sum = 0;
      for (int64_t n = 0; n < 4; ++n) sum += 0.5 * probe.nll.at(0, n);
      return sum;
    };
    expect_gradient(probe.hidden, p.dhidden, loss);
    if (mode == Weight::trained) expect_gradient(probe.weight, p.dweight, loss);
  }
}

TEST(CrossEntropy, ArgMaxOfATieIsTheLowestIndex) {
  for (const char* backend : {"reference", "cpu"}) {
    for (const int64_t chunk : {0, 16}) {
      Problem p(2, 1, 100, DType::f32, DType::f32);
      for (int64_t j = 0; j < 100; ++j) p.weight.set(j, 0, j % 20 == 5 ? 1 : 0);  // ties in and across chunks
      p.hidden.set(0, 0, 2);
      p.hidden.set(1, 0, -2);
      cross_entropy(On(backend), p.args(Weight::frozen, chunk));
      EXPECT_EQ(p.best[0], 5) << backend;
      EXPECT_EQ(p.best[1], 0) << backend;
    }
  }
}

TEST(CrossEntropy, ExtremeLogitsStayFinite) {
  for (const char* backend : {"reference", "cpu"}) {
    for (const Weight mode : {Weight::frozen, Weight::trained}) {
      Problem p(3, 1, 200, DType::f32, DType::f32);
      for (int64_t j = 0; j < 200; ++j) p.weight.set(j, 0, j == 150 ? 1e4 : -1e4);  // the maximum moves in a late chunk
      for (int64_t n = 0; n < 3; ++n) p.hidden.set(n, 0, n == 2 ? -1 : 1);
      p.labels = {150, 3, 150};
      cross_entropy(On(backend), p.args(mode, 64));
      // Row 0 is sure of its label; row 1 is as sure of another, 2e4 away; in row 2 the label is the one of 200 that is
      // ruled out, and the other 199 share the probability.
      EXPECT_EQ(p.nll.at(0, 0), 0) << backend;
      EXPECT_EQ(p.nll.at(0, 1), 2e4) << backend;
      EXPECT_NEAR(p.nll.at(0, 2), 2e4 + std::log(199.0), 2e4 * kUnit) << backend;
      EXPECT_EQ(p.dhidden.at(0, 0), 0) << backend;
      EXPECT_EQ(p.dhidden.at(1, 0), 2e4) << backend;
      // lse near 1e4 holds ln 199 to 2⁻¹¹ only, and the second pass reads it from there.
      EXPECT_NEAR(p.dhidden.at(2, 0), -2e4, 2e4 * 0x1p-11) << backend;
    }
  }
}

TEST(CrossEntropy, ANaNLogitGivesANaNLoss) {
  for (const char* backend : {"reference", "cpu"}) {
    Problem p(2, 1, 40, DType::f32, DType::f32);
    p.weight.set(17, 0, std::nan(""));
    cross_entropy(On(backend), p.args(Weight::frozen));
    EXPECT_TRUE(std::isnan(p.nll.at(0, 0))) << backend;
    EXPECT_TRUE(std::isnan(p.nll.at(0, 1))) << backend;
  }
}

/// What is held is bounded, and for few rows far below what the whole vocabulary would take.
TEST(CrossEntropy, HoldsOneBoundedChunkOfLogits) {
  for (const int64_t rows : {1, 100, 1024, 3000}) {
    Arena counted = Arena::counting();
    const Context ctx{.device = {}, .stream = {}, .kernels = kernels_for({}, "counting"), .scratch = counted};
    const TensorView hidden = counted.allocate({rows, 1}, DType::f32),
                     weight = counted.allocate({100'000, 1}, DType::f32), nll = counted.allocate({rows}, DType::f32);
    const std::vector<int32_t> labels(static_cast<size_t>(rows));
    const int64_t before = counted.peak_bytes();
    cross_entropy(
        ctx,
        {.hidden = hidden, .weight = weight, .labels = labels, .nll = nll, .best = {}, .dhidden = {}, .dweight = {}});
    const int64_t held = std::min<int64_t>(rows, 1024);
    EXPECT_GE(counted.peak_bytes() - before, held * kChunkColumns * 4);
    EXPECT_LE(counted.peak_bytes() - before, held * (kChunkColumns + 16) * 4 + (int64_t{4} << 20)) << rows;
  }
}

TEST(CrossEntropy, RefusesALabelBeyondTheVocabulary) {
  Problem p(1, 2, 5, DType::f32, DType::f32);
  p.labels[0] = 5;
  EXPECT_THROW(cross_entropy(On("cpu"), p.args(Weight::frozen)), InternalError);
}

class SoftmaxOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(SoftmaxOnCpu);

/// The running state of some rows.
struct State {
  Matrix max, sum, target, rescale;
  std::vector<int32_t> best;
  State(int64_t rows, DType dtype)
      : max(1, rows, dtype),
        sum(Matrix::zeros(1, rows, dtype)),
        target(Matrix::zeros(1, rows, dtype)),
        rescale(1, rows, dtype),
        best(static_cast<size_t>(rows), -1) {
    for (int64_t n = 0; n < rows; ++n) max.set(0, n, -INFINITY);
  }
  void step(const Context& ctx, const Matrix& logits, int64_t begin, std::span<const int32_t> labels) {
    ctx.kernels.softmax_chunk(ctx, {.logits = logits,
                                    .vocab_begin = begin,
                                    .labels = labels,
                                    .rows = {max.vector(), sum.vector(), target.vector(), rescale.vector(), best}});
  }
};

TEST_P(SoftmaxOnCpu, ChunksAgreeWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  for (const double range : {1.0, 30.0, 300.0}) {
    for (const int64_t cols : kLengths) {
      const int64_t rows = 40;
      std::vector<int32_t> labels;
      for (int64_t n = 0; n < rows; ++n) labels.push_back(static_cast<int32_t>(n % (3 * cols)));
      State got(rows, DType::f32), want(rows, DType::f64);
      for (int64_t chunk = 0; chunk < 3; ++chunk) {
        const Matrix logits = Matrix::random(rows, cols, DType::f32, static_cast<uint64_t>(chunk), range, 3),
                     start = logits.copy();
        const Matrix exact = logits.as(DType::f64);
        got.step(cpu, logits, chunk * cols, labels);
        want.step(reference, exact, chunk * cols, labels);
        // x - max is rounded once, so the exponential is off by its size; exp itself by 2 ulp.
        expect_within(logits, exact, [&](int64_t r, int64_t c) {
          return exact.at(r, c) * (5 + std::abs(start.at(r, c) - want.max.at(0, r))) * kUnit + 1e-37;
        });
        EXPECT_EQ(got.best, want.best);
      }
      expect_relative(got.max, want.max, 0);
      expect_relative(got.target, want.target, 0);
      expect_relative(got.sum, want.sum,
                      (static_cast<double>(cols) + 2 * 20) * kUnit);  // large terms have small |x - max|
    }
  }
}

TEST_P(SoftmaxOnCpu, GradientChunkAgreesWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  for (const int64_t cols : kLengths) {
    const int64_t rows = 40;
    std::vector<int32_t> labels;
    for (int64_t n = 0; n < rows; ++n) labels.push_back(static_cast<int32_t>(n % (2 * cols)));
    const Matrix logits = Matrix::random(rows, cols, DType::f32, 1, 5, 2), start = logits.copy(),
                 want = logits.as(DType::f64);
    Matrix lse = Matrix::random(1, rows, DType::f32, 2);
    for (int64_t n = 0; n < rows; ++n) lse.set(0, n, lse.at(0, n) + 6);
    cpu.operator const Context&().kernels.softmax_gradient_chunk(
        cpu, {.logits = logits, .vocab_begin = cols, .labels = labels, .lse = lse.vector(), .grad_scale = 0.3});
    reference.operator const Context&().kernels.softmax_gradient_chunk(
        reference,
        {.logits = want, .vocab_begin = cols, .labels = labels, .lse = lse.as(DType::f64).vector(), .grad_scale = 0.3});
    // |x - lse| is at most 12; scale and label add three roundings of 0.3.
    expect_within(logits, want, [&](int64_t, int64_t) { return 0.3 * (12 + 8) * kUnit; });
  }
}

TEST_P(SoftmaxOnCpu, ExponentialIsWithinTwoUnitsInTheLastPlace) {
  const On cpu("cpu");
  const int64_t count = 20000;
  Matrix logits(1, count, DType::f32);
  for (int64_t c = 0; c < count; ++c)
    logits.set(0, c, -87.0 * static_cast<double>(c) / count);  // c = 0 is the maximum, 0
  const Matrix start = logits.copy();
  State state(1, DType::f32);
  const std::vector<int32_t> labels{0};
  state.step(cpu, logits, 0, labels);
  double worst = 0;
  for (int64_t c = 0; c < count; ++c) {
    const double want = std::exp(start.at(0, c));
    const double ulp = std::nextafter(static_cast<float>(want), INFINITY) - static_cast<float>(want);
    worst = std::max(worst, std::abs(logits.at(0, c) - want) / ulp);
  }
  EXPECT_LT(worst, 2);
  RecordProperty("worst_ulp", std::to_string(worst));
  EXPECT_EQ(logits.at(0, 0), 1);
}

}  // namespace
}  // namespace tessera::test
