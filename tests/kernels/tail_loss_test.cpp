#include "kernels/tail_loss.h"

#include "core/error.h"
#include "harness.h"

namespace tessera::test {
namespace {

constexpr double kEps = 1e-5;

/// Rows 1, 3, 4, .. of hidden states, and what is added.
struct Problem {
  Matrix student, teacher, dstudent;
  std::vector<int32_t> rows;
  double grad_scale = 0.75;
  std::vector<double> losses;

  Problem(int64_t tokens, int64_t dim, DType dtype, double range = 2)
      : student(Matrix::random(tokens, dim, dtype, 1, range, 3)),
        teacher(Matrix::random(tokens, dim, dtype, 2, range, 1)),
        dstudent(Matrix::random(tokens, dim, dtype, 3, 1, 2)) {
    for (int64_t r = 1; r < tokens; r += r < 3 ? 2 : 1) rows.push_back(static_cast<int32_t>(r));
    losses.assign(rows.size(), 0.25);
  }
  TailLossArgs args() {
    return {.student = student.view(),
            .teacher = teacher.view(),
            .rows = rows,
            .eps = kEps,
            .grad_scale = grad_scale,
            .loss = losses,
            .dstudent = dstudent};
  }
  /// The sum of all rows without gradients, from 0.
  double loss(const Context& ctx) {
    losses.assign(rows.size(), 0);
    TailLossArgs only_loss = args();
    only_loss.dstudent = {};
    tail_loss(ctx, only_loss);
    double sum = 0;
    for (const double loss : losses) sum += loss;
    return sum;
  }
};

double inverse_rms(const Matrix& x, int64_t r) {
  double squares = 0;
  for (int64_t c = 0; c < x.cols(); ++c) squares += x.at(r, c) * x.at(r, c);
  return 1 / std::sqrt(squares / static_cast<double>(x.cols()) + kEps);
}

TEST(TailLoss, IsTheMeanSquareOfTheDistanceOfNormedRows) {
  Problem p(6, 5, DType::f64);
  tail_loss(On("reference"), p.args());
  double want = 0;
  for (size_t i = 0; i < p.rows.size(); ++i) {
    const int64_t r = p.rows[i];
    double square = 0;
    for (int64_t c = 0; c < 5; ++c)
      square +=
          std::pow(p.student.at(r, c) * inverse_rms(p.student, r) - p.teacher.at(r, c) * inverse_rms(p.teacher, r), 2) /
          5;
    EXPECT_NEAR(p.losses[i], 0.25 + square, 1e-13);
    want += square;
  }
  EXPECT_NEAR(p.loss(On("reference")), want, 1e-13);
}

TEST(GradCheck, TailLoss) {
  const On reference("reference");
  Problem p(6, 5, DType::f64);
  p.dstudent = Matrix::zeros(6, 5, DType::f64);
  tail_loss(reference, p.args());
  expect_gradient(p.student, p.dstudent, [&] { return p.grad_scale * p.loss(reference); });
}

TEST(TailLoss, OtherRowsAndTheTeachersSizeDoNotCount) {
  for (const char* backend : {"reference", "cpu"}) {
    Problem p(6, 40, DType::f32), start(6, 40, DType::f32);
    tail_loss(On(backend), p.args());
    for (const int64_t r : {0, 2})
      for (int64_t c = 0; c < 40; ++c) EXPECT_EQ(p.dstudent.at(r, c), start.dstudent.at(r, c));
    EXPECT_NE(p.dstudent.at(1, 0), start.dstudent.at(1, 0));
    Problem scaled(6, 40, DType::f32);
    for (int64_t r = 0; r < 6; ++r)
      for (int64_t c = 0; c < 40; ++c) scaled.teacher.set(r, c, 1024 * scaled.teacher.at(r, c));
    EXPECT_NEAR(scaled.loss(On(backend)), p.loss(On(backend)), 1e-4) << backend;  // eps is felt in small rows only
  }
}

TEST(TailLoss, EqualRowsAndRowsOfZerosAreNoDistanceApart) {
  for (const char* backend : {"reference", "cpu"}) {
    Problem p(4, 33, DType::f32), start(4, 33, DType::f32);
    p.teacher = p.student.copy();
    for (int64_t c = 0; c < 33; ++c)
      for (Matrix* x : {&p.student, &p.teacher}) x->set(1, c, 0);
    tail_loss(On(backend), p.args());
    EXPECT_THAT(p.losses, testing::Each(0.25)) << backend;
    EXPECT_TRUE(p.dstudent.equals_bitwise(start.dstudent)) << backend;
  }
}

TEST(TailLoss, ThreadsDoNotChangeABit) {
  Problem one(700, 64, DType::f32);
  tail_loss(On("cpu", 1), one.args());
  for (const int threads : {2, 3}) {
    Problem more(700, 64, DType::f32);
    tail_loss(On("cpu", threads), more.args());
    EXPECT_EQ(more.losses, one.losses);
    EXPECT_TRUE(more.dstudent.equals_bitwise(one.dstudent));
  }
}

TEST(TailLoss, TakesTheScratchThatIsPlanned) {
  std::vector<int32_t> rows;
  for (int32_t r = 0; r < 5000; ++r) rows.push_back(r);
  expect_planned([&](const Context& ctx) {
    const auto matrix = [&] { return ctx.scratch.allocate({5000, 3}, DType::f32); };
    tail_loss(ctx, {.student = matrix(),
                    .teacher = matrix(),
                    .rows = rows,
                    .eps = kEps,
                    .loss = ctx.scratch.allocate({5000}, DType::f64),
                    .dstudent = matrix()});
  });
}

TEST(TailLoss, RefusesRowsTwiceLossesForOthersAndNoEps) {
  Problem p(6, 5, DType::f32);
  p.rows = {1, 1};
  EXPECT_THROW(tail_loss(On("cpu"), p.args()), InternalError);
  p.rows = {6};
  EXPECT_THROW(tail_loss(On("cpu"), p.args()), InternalError);
  p.rows = {1, 3};
  p.losses = {0.25};
  EXPECT_THROW(tail_loss(On("cpu"), p.args()), InternalError);
  p.rows = {};
  p.losses = {};
  tail_loss(On("cpu"), p.args());
  TailLossArgs args = p.args();
  args.eps = 0;
  EXPECT_THROW(tail_loss(On("cpu"), args), InternalError);
}

class TailLossOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(TailLossOnCpu);

TEST_P(TailLossOnCpu, AgreesWithTheReference) {
  for (const int64_t dim : kLengths)
    for (const int64_t tokens : {2, 5, 70}) {
      Problem got(tokens, dim, DType::f32), want(tokens, dim, DType::f64);
      tail_loss(On("cpu", 2), got.args());
      tail_loss(On("reference"), want.args());
      // A normed number is off by its own roundings and the root's, which is a sum of `dim` squares.
      const double unit = (static_cast<double>(dim) / 4 + 16) * kUnit;
      for (size_t i = 0; i < got.losses.size(); ++i) EXPECT_NEAR(got.losses[i], want.losses[i], 4 * unit);
      expect_within(got.dstudent, want.dstudent, [&](int64_t r, int64_t) {
        return 2 * kUnit + 16 * unit * inverse_rms(want.student, r) / static_cast<double>(dim);
      });
    }
}

}  // namespace
}  // namespace tessera::test
