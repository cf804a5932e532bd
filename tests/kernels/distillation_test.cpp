#include "kernels/distillation.h"

#include "core/error.h"
#include "distillation_problem.h"

namespace tessera::test {
namespace {

using distillation::Problem;
using distillation::Size;
using distillation::Truth;
using distillation::Weight;

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

}  // namespace
}  // namespace tessera::test
