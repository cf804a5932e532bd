#include "kernels/distillation.h"

#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

enum class Weight { frozen, trained };

struct Size {
  int64_t rows, dim, teacher_dim, vocab;
};

/// A problem and the outputs of one call.
struct Problem {
  Size size;
  Matrix hidden, weight, teacher_hidden, teacher_weight;
  std::vector<int32_t> labels;
  double temperature = 2, grad_scale = 0.5, kl_grad_scale = 0.75;
  Matrix nll, kl, dhidden, dweight, dweight_before;
  std::vector<int32_t> best;

  explicit Problem(Size s, DType compute = DType::f64, DType stored = DType::f64, double range = 1)
      : size(s),
        hidden(Matrix::random(s.rows, s.dim, compute, 1, range, 2)),
        weight(Matrix::random(s.vocab, s.dim, stored, 2, range)),
        teacher_hidden(Matrix::random(s.rows, s.teacher_dim, compute, 3, range, 1)),
        teacher_weight(Matrix::random(s.vocab, s.teacher_dim, stored, 4, range)),
        nll(1, s.rows, compute),
        kl(1, s.rows, compute),
        dhidden(s.rows, s.dim, compute, 3),
        dweight(Matrix::random(s.vocab, s.dim, compute, 5)),
        dweight_before(dweight.copy()),
        best(static_cast<size_t>(s.rows)) {
    for (int64_t n = 0; n < s.rows; ++n)
      labels.push_back(static_cast<int32_t>(mix64(static_cast<uint64_t>(n)) % static_cast<uint64_t>(s.vocab)));
  }
  DistillArgs args(Weight mode, int64_t chunk = 0) {
    return {.student = {.hidden = hidden.view(), .weight = weight.view()},
            .teacher = {.hidden = teacher_hidden.view(), .weight = teacher_weight.view()},
            .labels = labels,
            .temperature = temperature,
            .grad_scale = grad_scale,
            .kl_grad_scale = kl_grad_scale,
            .nll = nll.vector(),
            .kl = kl.vector(),
            .best = best,
            .dhidden = dhidden,
            .dweight = mode == Weight::trained ? dweight.view() : TensorView(),
            .chunk = chunk};
  }
  /// The student's head and hidden states read what the teacher's do.
  void teach_itself() {
    teacher_hidden = hidden.copy();
    teacher_weight = weight.copy();
  }
};

/// log softmax of logits / temperature, whole.
std::vector<double> log_softmax(const std::vector<double>& logits, double temperature) {
  const double max = *std::max_element(logits.begin(), logits.end()) / temperature;
  double sum = 0;
  for (const double z : logits) sum += std::exp(z / temperature - max);
  std::vector<double> result;
  for (const double z : logits) result.push_back(z / temperature - max - std::log(sum));
  return result;
}

std::vector<double> logits_of(const Matrix& hidden, const Matrix& weight, int64_t n) {
  std::vector<double> logits(static_cast<size_t>(weight.rows()));
  for (int64_t j = 0; j < weight.rows(); ++j)
    for (int64_t k = 0; k < hidden.cols(); ++k) logits[j] += hidden.at(n, k) * weight.at(j, k);
  return logits;
}

/// The whole softmaxes in f64 with all logits in memory.
struct Truth {
  std::vector<double> nll, kl;
  std::vector<int32_t> best;
  Matrix dhidden, dweight;

  explicit Truth(const Problem& p)
      : dhidden(Matrix::zeros(p.size.rows, p.size.dim, DType::f64)), dweight(p.dweight_before.as(DType::f64)) {
    for (int64_t n = 0; n < p.size.rows; ++n) {
      const auto z = logits_of(p.hidden, p.weight, n);
      const auto plain = log_softmax(z, 1), student = log_softmax(z, p.temperature),
                 teacher = log_softmax(logits_of(p.teacher_hidden, p.teacher_weight, n), p.temperature);
      best.push_back(static_cast<int32_t>(std::max_element(z.begin(), z.end()) - z.begin()));
      nll.push_back(-plain[p.labels[n]]);
      kl.push_back(0);
      for (int64_t j = 0; j < p.size.vocab; ++j) {
        const double t = std::exp(teacher[j]);
        if (t > 0) kl.back() += t * (teacher[j] - student[j]);
        const double g = p.grad_scale * (std::exp(plain[j]) - (j == p.labels[n] ? 1 : 0)) +
                         p.kl_grad_scale * p.temperature * (std::exp(student[j]) - t);
        for (int64_t k = 0; k < p.size.dim; ++k) {
          dhidden.set(n, k, dhidden.at(n, k) + g * p.weight.at(j, k));
          dweight.set(j, k, dweight.at(j, k) + g * p.hidden.at(n, k));
        }
      }
    }
  }
};

void expect_truth(const Problem& p, Weight mode, double tolerance) {
  const Truth truth(p);
  for (size_t n = 0; n < truth.nll.size(); ++n) {
    const auto column = static_cast<int64_t>(n);
    ASSERT_NEAR(p.nll.at(0, column), truth.nll[n], tolerance * (1 + std::abs(truth.nll[n])));
    ASSERT_NEAR(p.kl.at(0, column), truth.kl[n], tolerance * (1 + std::abs(truth.kl[n])));
  }
  EXPECT_EQ(p.best, truth.best);
  const auto bound = [&](int64_t, int64_t) { return tolerance * (1 + p.grad_scale + p.kl_grad_scale * p.temperature); };
  expect_within(p.dhidden, truth.dhidden, bound);
  if (mode == Weight::trained) expect_within(p.dweight, truth.dweight, bound);
}

TEST(Distill, EqualsWholeSoftmaxesWhateverTheChunkAndTemperature) {
  const On reference("reference");
  for (const int64_t vocab : {1, 63, 65, 300})
    for (const int64_t chunk : {0, 1, 64, 100})
      for (const double temperature : {1.0, 2.0, 4.0})
        for (const Weight mode : {Weight::frozen, Weight::trained}) {
          if (vocab == 300 && chunk == 1) continue;
          Problem p({.rows = 7, .dim = 5, .teacher_dim = 8, .vocab = vocab}, DType::f64, DType::f64, 2);
          p.temperature = temperature;
          p.labels[0] = 0;  // at the borders of chunks
          p.labels[1] = static_cast<int32_t>(vocab - 1);
          p.labels[2] = static_cast<int32_t>(std::min<int64_t>(64, vocab - 1));
          distill(reference, p.args(mode, chunk));
          SCOPED_TRACE(fmt::format("vocabulary {}, chunk {}, temperature {}", vocab, chunk, temperature));
          expect_truth(p, mode, 1e-12);
        }
}

TEST(Distill, TakesManyRowsInBlocks) {
  for (const Weight mode : {Weight::frozen, Weight::trained}) {
    Problem p({.rows = 2500, .dim = 2, .teacher_dim = 2, .vocab = 7});
    distill(On("reference"), p.args(mode, 3));
    expect_truth(p, mode, 1e-11);
  }
}

TEST(Distill, CpuAgreesForEveryStorageType) {
  for (const DType stored : {DType::f32, DType::bf16, DType::f16})
    for (const int64_t chunk : {0, 64})
      for (const double temperature : {1.0, 2.0, 3.0})
        for (const Weight mode : {Weight::frozen, Weight::trained}) {
          Problem p({.rows = 17, .dim = 33, .teacher_dim = 20, .vocab = 300}, DType::f32, stored, 0.5);
          p.temperature = temperature;
          distill(On("cpu", 2), p.args(mode, chunk));
          // Logits of 33 products up to 1/4 are off by 33 units of 3, probabilities by as much, sums of 300 of them by
          // less.
          expect_truth(p, mode, 33 * 4 * kUnit);
        }
}

TEST(Distill, LossesHaveTheBitsOfCrossEntropy) {
  for (const Weight mode : {Weight::frozen, Weight::trained})
    for (const int64_t chunk : {0, 192}) {
      Problem p({.rows = 70, .dim = 40, .teacher_dim = 24, .vocab = 1000}, DType::f32, DType::f32);
      distill(On("cpu", 2), p.args(mode, chunk));
      const Matrix nll(1, 70, DType::f32), dhidden(70, 40, DType::f32, 1);
      std::vector<int32_t> best(70);
      cross_entropy(On("cpu", 2), {.hidden = p.hidden.view(),
                                   .weight = p.weight.view(),
                                   .labels = p.labels,
                                   .nll = nll.vector(),
                                   .best = best,
                                   .dhidden = dhidden,
                                   .dweight = {},
                                   .chunk = chunk});
      EXPECT_TRUE(p.nll.equals_bitwise(nll));
      EXPECT_EQ(p.best, best);
    }
}

TEST(Distill, WithoutGradientsTheSumsAreTheSame) {
  for (const char* backend : {"reference", "cpu"}) {
    Problem with({.rows = 9, .dim = 12, .teacher_dim = 7, .vocab = 130}, DType::f32, DType::f32),
        without({.rows = 9, .dim = 12, .teacher_dim = 7, .vocab = 130}, DType::f32, DType::f32);
    distill(On(backend), with.args(Weight::frozen, 64));
    DistillArgs args = without.args(Weight::frozen, 64);
    args.dhidden = {};
    distill(On(backend), args);
    EXPECT_TRUE(without.nll.equals_bitwise(with.nll)) << backend;
    EXPECT_TRUE(without.kl.equals_bitwise(with.kl)) << backend;
    EXPECT_EQ(without.best, with.best) << backend;
  }
}

TEST(Distill, TakesHeadsThatAreMadeTileByTile) {
  for (const bool student_too : {false, true}) {
    const Size size{.rows = 9, .dim = 12, .teacher_dim = 7, .vocab = 130};
    Problem stored(size, DType::f32, DType::f32), made(size, DType::f32, DType::f32);
    DistillArgs want = stored.args(Weight::frozen, 64), got = made.args(Weight::frozen, 64);
    const auto tile = [](LogitSource& source) {
      const ConstView weight = source.weight;
      source.vocab = weight.shape[0];
      source.weight = {};
      source.weight_rows = [weight](int64_t begin, int64_t end) { return weight.slice_rows(begin, end); };
    };
    tile(got.teacher);
    if (student_too) {
      tile(got.student);
      want.dhidden = got.dhidden = {};
    }
    distill(On("cpu"), want);
    distill(On("cpu"), got);
    EXPECT_TRUE(made.nll.equals_bitwise(stored.nll));
    EXPECT_TRUE(made.kl.equals_bitwise(stored.kl));
    EXPECT_TRUE(student_too || made.dhidden.equals_bitwise(stored.dhidden));
  }
}

TEST(GradCheck, Distill) {
  const On reference("reference");
  for (const double temperature : {1.0, 2.0, 4.0})
    for (const Weight mode : {Weight::frozen, Weight::trained}) {
      const Size size{.rows = 4, .dim = 3, .teacher_dim = 5, .vocab = 11};
      Problem p(size, DType::f64, DType::f64, 2), probe(size, DType::f64, DType::f64, 2);
      p.temperature = probe.temperature = temperature;
      p.dweight = Matrix::zeros(11, 3, DType::f64);
      distill(reference, p.args(mode, 4));
      const auto loss = [&] {
        DistillArgs args = probe.args(Weight::frozen, 4);
        args.dhidden = {};
        distill(reference, args);
        double sum = 0;
        for (int64_t n = 0; n < 4; ++n)
          sum += p.grad_scale * probe.nll.at(0, n) + p.kl_grad_scale * temperature * temperature * probe.kl.at(0, n);
        return sum;
      };
      expect_gradient(probe.hidden, p.dhidden, loss);
      if (mode == Weight::trained) expect_gradient(probe.weight, p.dweight, loss);
    }
}

TEST(Distill, AStudentThatEqualsItsTeacherHasNothingToLearn) {
  for (const char* backend : {"reference", "cpu"})
    for (const Weight mode : {Weight::frozen, Weight::trained}) {
      Problem p({.rows = 20, .dim = 16, .teacher_dim = 16, .vocab = 333}, DType::f32, DType::f32, 2);
      p.teach_itself();
      p.grad_scale = 0;
      p.dweight = Matrix::zeros(333, 16, DType::f32);
      distill(On(backend, 2), p.args(mode, 64));
      for (int64_t n = 0; n < 20; ++n) EXPECT_EQ(p.kl.at(0, n), 0) << backend;
      const Matrix none = Matrix::zeros(20, 16, DType::f32);
      expect_within(p.dhidden, none, [](int64_t, int64_t) { return 0; });
      if (mode == Weight::trained)
        expect_within(p.dweight, Matrix::zeros(333, 16, DType::f32), [](int64_t, int64_t) { return 0; });
    }
}

TEST(Distill, AConstantOnAllLogitsCostsNoAccuracy) {
  for (const char* backend : {"reference", "cpu"}) {
    const int64_t vocab = 500;
    Problem p({.rows = 3, .dim = 2, .teacher_dim = 2, .vocab = vocab}, DType::f32, DType::f32);
    // Multiples of 1/16 stay exact beside 1e4; the second input adds 8192 to the student's logits.
    const auto sixteenths = [](int64_t i) { return static_cast<double>(mix64(static_cast<uint64_t>(i)) % 32) / 16; };
    for (int64_t j = 0; j < vocab; ++j) {
      p.weight.set(j, 0, sixteenths(j));
      p.weight.set(j, 1, 8192);
      p.teacher_weight.set(j, 0, sixteenths(j + vocab));
      p.teacher_weight.set(j, 1, 0);
    }
    for (int64_t n = 0; n < 3; ++n)
      for (Matrix* hidden : {&p.hidden, &p.teacher_hidden})
        for (int64_t k = 0; k < 2; ++k) hidden->set(n, k, k == 1 && n == 0 ? 0 : 1);
    distill(On(backend), p.args(Weight::frozen, 64));
    EXPECT_GT(p.kl.at(0, 0), 0.05) << backend;
    EXPECT_EQ(p.kl.at(0, 1), p.kl.at(0, 0)) << backend;
    EXPECT_NEAR(p.kl.at(0, 0), Truth(p).kl[0], 64 * kUnit) << backend;  // sums of 500 numbers
  }
}

TEST(Distill, ExtremeLogitsStayFinite) {
  for (const char* backend : {"reference", "cpu"})
    for (const Weight mode : {Weight::frozen, Weight::trained}) {
      Problem p({.rows = 3, .dim = 1, .teacher_dim = 1, .vocab = 200}, DType::f32, DType::f32);
      p.grad_scale = 0;
      p.kl_grad_scale = 1;
      for (int64_t j = 0; j < 200; ++j) {
        p.weight.set(j, 0, j == 150 ? 1e4 : -1e4);  // the maxima move in late chunks, which are not the same
        p.teacher_weight.set(j, 0, j == 90 ? 1e4 : -1e4);
      }
      for (int64_t n = 0; n < 3; ++n) {
        p.hidden.set(n, 0, n == 2 ? -1 : 1);
        p.teacher_hidden.set(n, 0, 1);
      }
      p.teacher_hidden.set(1, 0, 0);  // a teacher that knows nothing
      distill(On(backend), p.args(mode, 64));
      EXPECT_EQ(p.kl.at(0, 0), 1e4) << backend;  // 2e4 / T
      EXPECT_NEAR(p.kl.at(0, 1), 1e4 * 199 / 200 - std::log(200.0), 1e4 * 64 * kUnit) << backend;
      EXPECT_NEAR(p.kl.at(0, 2), std::log(199.0), 16 * kUnit) << backend;
      EXPECT_NEAR(p.dhidden.at(0, 0), 2 * (1e4 + 1e4), 0.01) << backend;
      for (int64_t n = 0; n < 3; ++n) EXPECT_TRUE(std::isfinite(p.dhidden.at(n, 0))) << backend;
    }
}

/// KL of given logits, in chunks: a head of one input has them as its weight.
double divergence(const char* backend, const std::vector<double>& student, const std::vector<double>& teacher,
                  int64_t chunk) {
  const auto vocab = static_cast<int64_t>(student.size());
  Problem p({.rows = 1, .dim = 1, .teacher_dim = 1, .vocab = vocab}, DType::f32, DType::f32);
  p.temperature = 1;
  for (int64_t j = 0; j < vocab; ++j) {
    p.weight.set(j, 0, student[static_cast<size_t>(j)]);
    p.teacher_weight.set(j, 0, teacher[static_cast<size_t>(j)]);
  }
  p.hidden.set(0, 0, 1);
  p.teacher_hidden.set(0, 0, 1);
  DistillArgs args = p.args(Weight::frozen, chunk);
  args.dhidden = {};
  distill(On(backend), args);
  return p.kl.at(0, 0);
}

TEST(Distill, LogitsOfMinusInfinityHaveNoProbability) {
  constexpr double kNever = -INFINITY;
  for (const char* backend : {"reference", "cpu"})
    for (const int64_t chunk : {1, 2, 4}) {
      SCOPED_TRACE(fmt::format("{}, chunk {}", backend, chunk));
      // Where the teacher has none, the student's does not matter; a chunk without any is passed over.
      EXPECT_NEAR(divergence(backend, {kNever, kNever, 0, 0}, {kNever, kNever, 1, 1}, chunk), 0, 4 * kUnit);
      EXPECT_NEAR(divergence(backend, {0, 0, 0, 0}, {kNever, kNever, 3, 3}, chunk), std::log(2.0), 4 * kUnit);
      EXPECT_NEAR(divergence(backend, {0, 0, 0, 0}, {3, kNever, 3, kNever}, chunk), std::log(2.0), 4 * kUnit);
      // What the student rules out and the teacher does not is infinitely far.
      EXPECT_EQ(divergence(backend, {kNever, kNever, 0, 0}, {1, 1, 1, 1}, chunk), INFINITY);
      EXPECT_EQ(divergence(backend, {0, 0, kNever, 0}, {1, 1, 1, 1}, chunk), INFINITY);
    }
}

TEST(Distill, ANaNLogitGivesANaNLoss) {
  for (const char* backend : {"reference", "cpu"})
    for (const bool of_teacher : {false, true}) {
      Problem p({.rows = 2, .dim = 1, .teacher_dim = 1, .vocab = 40}, DType::f32, DType::f32);
      (of_teacher ? p.teacher_weight : p.weight).set(17, 0, std::nan(""));
      distill(On(backend), p.args(Weight::frozen, 16));
      EXPECT_TRUE(std::isnan(p.kl.at(0, 0))) << backend;
      EXPECT_TRUE(std::isnan(p.kl.at(0, 1))) << backend;
    }
}

TEST(Distill, ThreadsDoNotChangeABit) {
  for (const Weight mode : {Weight::frozen, Weight::trained}) {
    const Size size{.rows = 70, .dim = 40, .teacher_dim = 56, .vocab = 1000};
    Problem one(size, DType::f32, DType::f32);
    distill(On("cpu", 1), one.args(mode, 256));
    for (const int threads : {2, 3}) {
      Problem more(size, DType::f32, DType::f32);
      distill(On("cpu", threads), more.args(mode, 256));
      EXPECT_TRUE(more.nll.equals_bitwise(one.nll));
      EXPECT_TRUE(more.kl.equals_bitwise(one.kl));
      EXPECT_TRUE(more.dhidden.equals_bitwise(one.dhidden));
      EXPECT_TRUE(more.dweight.equals_bitwise(one.dweight));
      EXPECT_EQ(more.best, one.best);
    }
  }
}

TEST(Distill, TakesTheScratchThatIsPlanned) {
  const std::vector<int32_t> labels(1300, 1);
  for (const Weight mode : {Weight::frozen, Weight::trained})
    expect_planned([&](const Context& ctx) {
      const auto matrix = [&](Shape shape) { return ctx.scratch.allocate(shape, DType::f32); };
      distill(ctx, {.student = {.hidden = matrix({1300, 65}), .weight = matrix({3000, 65})},
                    .teacher = {.hidden = matrix({1300, 33}), .weight = matrix({3000, 33})},
                    .labels = labels,
                    .temperature = 2,
                    .nll = matrix({1300}),
                    .kl = matrix({1300}),
                    .best = {},
                    .dhidden = matrix({1300, 65}),
                    .dweight = mode == Weight::trained ? matrix({3000, 65}) : TensorView(),
                    .chunk = 640});
    });
}

TEST(Distill, ScratchDoesNotGrowWithTheBatchOrTheVocabulary) {
  const auto taken = [](int64_t rows, int64_t vocab) {
    Arena arena = Arena::counting();
    const Context plan{.device = {}, .stream = {}, .kernels = kernels_for({}, "counting"), .scratch = arena};
    const std::vector<int32_t> labels(static_cast<size_t>(rows), 0);
    const TensorView hidden = arena.allocate({rows, 64}, DType::f32), weight = arena.allocate({vocab, 64}, DType::f32),
                     vector = arena.allocate({rows}, DType::f32);
    const int64_t before = arena.used_bytes();
    distill(plan, {.student = {.hidden = hidden, .weight = weight},
                   .teacher = {.hidden = hidden, .weight = weight},
                   .labels = labels,
                   .nll = vector,
                   .kl = vector,
                   .best = {},
                   .dhidden = arena.allocate({rows, 64}, DType::f32),
                   .dweight = {}});
    return arena.peak_bytes() - before - rows * 64 * 4;
  };
  EXPECT_EQ(taken(5000, 50000), taken(1024, 50000));
  EXPECT_EQ(taken(1024, 500000), taken(1024, 50000));
  EXPECT_LT(taken(1024, 50000), int64_t{52} << 20);  // three buffers of 16 MB
}

TEST(Distill, RefusesTwoVocabulariesAndNoTemperature) {
  Problem p({.rows = 1, .dim = 2, .teacher_dim = 2, .vocab = 5}, DType::f32, DType::f32);
  DistillArgs args = p.args(Weight::frozen);
  args.teacher.weight = args.teacher.weight.slice_rows(0, 4);
  try {
    distill(On("cpu"), args);
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("the teacher's vocabulary has 4 tokens, the student's 5"));
  }
  args = p.args(Weight::frozen);
  args.temperature = 0;
  EXPECT_THROW(distill(On("cpu"), args), InternalError);
  p.labels[0] = 5;
  EXPECT_THROW(distill(On("cpu"), p.args(Weight::frozen)), InternalError);
}

class DistillOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(DistillOnCpu);

/// The running state of some rows.
struct State {
  Matrix s_max, s_sum, s_rescale, t_max, t_sum, t_rescale, cross;
  State(int64_t rows, DType dtype)
      : s_max(1, rows, dtype),
        s_sum(1, rows, dtype),
        s_rescale(1, rows, dtype),
        t_max(1, rows, dtype),
        t_sum(1, rows, dtype),
        t_rescale(1, rows, dtype),
        cross(1, rows, dtype) {}
  DistillRows rows() const {
    return {.student = {s_max.vector(), s_sum.vector(), s_rescale.vector()},
            .teacher = {t_max.vector(), t_sum.vector(), t_rescale.vector()},
            .cross = cross.vector()};
  }
};

TEST_P(DistillOnCpu, ChunksAgreeWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  const auto kernels = [](const Context& ctx) -> const Kernels& { return ctx.kernels; };
  for (const double range : {1.0, 20.0})
    for (const int64_t cols : kLengths) {
      const int64_t rows = 20;
      State got(rows, DType::f32), want(rows, DType::f64);
      kernels(cpu).distill_begin(cpu, got.rows());
      kernels(reference).distill_begin(reference, want.rows());
      for (uint64_t chunk = 0; chunk < 3; ++chunk) {
        const Matrix student = Matrix::random(rows, cols, DType::f32, chunk, range, 3), exact = student.as(DType::f64);
        const Matrix teacher = Matrix::random(rows, cols, DType::f32, 9 + chunk, range, 1),
                     exact_teacher = teacher.as(DType::f64);
        const Matrix student_exp(rows, cols, DType::f32, 2), want_exp(rows, cols, DType::f64, 2);
        const auto step = [&](const Context& ctx, const State& state, const Matrix& s, const Matrix& t,
                              const Matrix& e) {
          kernels(ctx).distill_chunk(
              ctx, {.student = s.view(), .teacher = t, .student_exp = e, .temperature = 2, .rows = state.rows()});
        };
        step(cpu, got, student, teacher, student_exp);
        step(reference, want, exact, exact_teacher, want_exp);
        // Distances of up to `range` are rounded twice, which puts exponentials off by as much; exp itself by 2 ulp.
        const double unit = (8 + 2 * range) * kUnit;
        expect_relative(student_exp, want_exp, unit);
        expect_relative(teacher, exact_teacher, unit);
      }
      expect_relative(got.s_max, want.s_max, 0);
      expect_relative(got.t_max, want.t_max, 0);
      const double unit = (static_cast<double>(cols) + 8 + 2 * range) * kUnit;
      expect_relative(got.s_sum, want.s_sum, unit);
      expect_relative(got.t_sum, want.t_sum, unit);
      expect_within(got.cross, want.cross,
                    [&](int64_t, int64_t n) { return unit * range * (1 + want.t_sum.at(0, n)); });
    }
}

TEST_P(DistillOnCpu, GradientChunkAgreesWithTheReference) {
  const On cpu("cpu", 2), reference("reference");
  const auto kernels = [](const Context& ctx) -> const Kernels& { return ctx.kernels; };
  for (const int64_t cols : kLengths) {
    const int64_t rows = 40;
    const Matrix student = Matrix::random(rows, cols, DType::f32, 1, 5, 2), exact = student.as(DType::f64);
    const Matrix teacher = Matrix::random(rows, cols, DType::f32, 2, 5, 1), want = teacher.as(DType::f64);
    State state(rows, DType::f32), exact_state(rows, DType::f64);
    for (int64_t n = 0; n < rows; ++n)
      for (State* of : {&state, &exact_state}) {
        of->s_max.set(0, n, 5);
        of->t_max.set(0, n, 5.5);
        of->s_sum.set(0, n, 0.25);
        of->t_sum.set(0, n, -0.375);
      }
    kernels(cpu).distill_gradient_chunk(
        cpu, {.student = student.view(), .teacher = teacher, .temperature = 3, .rows = state.rows()});
    kernels(reference).distill_gradient_chunk(
        reference, {.student = exact.view(), .teacher = want, .temperature = 3, .rows = exact_state.rows()});
    // Exponents reach −3.5 and are rounded three times.
    expect_within(teacher, want, [](int64_t, int64_t) { return 0.625 * (3 * 3.5 + 4) * kUnit; });
  }
}

}  // namespace
}  // namespace tessera::test
