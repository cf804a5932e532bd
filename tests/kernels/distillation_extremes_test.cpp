// Distillation of logits that are large, far apart, infinite, or no numbers.

#include <fmt/core.h>

#include "distillation_problem.h"

namespace tessera::test {
namespace {

using distillation::Problem;
using distillation::Truth;
using distillation::Weight;

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
      // T is 2. Row 0: the teacher is sure of column 90, the student of 150, which are 2e4 apart. Row 1: the teacher
      // has 1/200 everywhere, its entropy is log 200, and the student gives 199 columns e^-1e4. Row 2: with its input
      // turned around the student has 1/199 everywhere but at 150. The gradient is T (P_s - P_t) times the weights, 1e4
      // at 150 and -1e4 at 90.
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

}  // namespace
}  // namespace tessera::test
