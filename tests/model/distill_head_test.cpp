// The decoder's end under a teacher: what goes back into hidden states, norm and head, and who reads what.

#include "model/distill_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "support/gradcheck.h"
#include "support/loose_decoder.h"

namespace tessera {
namespace {

using test::LooseDecoder;
using test::LooseOptions;
using test::OwnContext;
using test::Trained;

constexpr double kTemperature = 2, kWeight = 0.75;

/// Hidden states of a student and of a wider teacher; rows 1, 2, 4 and 7 of eight are scored, where the teacher's stand
/// elsewhere.
struct Pair {
  LooseDecoder student, teacher;
  Tensor hidden, teacher_hidden, nll, kl, best, dhidden;
  std::vector<int32_t> rows{1, 2, 4, 7}, teacher_rows{0, 3, 1, 2}, labels{3, 22, 0, 9}, ids = std::vector<int32_t>(8);

  explicit Pair(DType compute, Trained trained = Trained::everything)
      : student({.compute = compute, .trained = trained, .size = {.layers = 1}}),
        teacher({.compute = compute, .trained = Trained::nothing, .size = {.hidden_size = 24, .layers = 1}}),
        hidden({8, 16}, compute),
        teacher_hidden({4, 24}, compute),
        nll({4}, compute),
        kl({4}, compute),
        best({4}, DType::i32),
        dhidden({8, 16}, compute) {
    test::fill_normal(hidden, 1, 1);
    test::fill_normal(teacher_hidden, 2, 1);
  }
  Pass pass(const Context& ctx, const TokenBatch& batch, ParameterPool* gradients = nullptr) {
    return {ctx, batch, {&student.pool}, gradients};
  }
  TokenBatch batch(std::span<const RowGroup> groups) const { return {ids, {}, {}, {}, groups}; }
  DistillHeadArgs args() const {
    return args_under({.part = teacher.decoder->head_part(),
                       .read = {&teacher.pool},
                       .hidden = teacher_hidden.view(),
                       .rows = teacher_rows});
  }
  DistillHeadArgs args_under(const TeacherHead& other) const {
    return {.head = {.rows = rows, .labels = labels, .nll = nll, .best = best, .dhidden = {}},
            .teacher = other,
            .temperature = kTemperature,
            .kl_weight = kWeight,
            .kl = kl};
  }
  void run(const Context& ctx, const DistillHeadArgs& args, ParameterPool* gradients = nullptr) {
    const RowGroup group{0, 8};
    const TokenBatch all = batch({&group, 1});
    distill_rows(pass(ctx, all, gradients), student.decoder->head_part(), hidden.view(), args);
  }
  double loss(const Context& ctx) {
    run(ctx, args());
    double sum = 0;
    for (int64_t n = 0; n < 4; ++n)
      sum += element(nll.view(), n) + kWeight * kTemperature * kTemperature * element(kl.view(), n);
    return sum;
  }
};

std::vector<float> values(const Tensor& tensor) {
  const auto flat = tensor.as<float>();
  return {flat.begin(), flat.end()};
}

TEST(DistillHead, GradientsAreTheLossesDerivatives) {
  for (const Trained trained : {Trained::everything, Trained::nothing}) {
    OwnContext own("reference");
    Pair pair(DType::f64, trained);
    DistillHeadArgs args = pair.args();
    args.head.dhidden = pair.dhidden;
    pair.run(own.ctx, args, &pair.student.pool);
    const auto loss = [&] { return pair.loss(own.ctx); };
    EXPECT_LE(test::gradient_error(pair.hidden.as<double>(), pair.dhidden.as<double>(), loss, 30), 1e-8);
    if (trained == Trained::nothing) continue;
    for (const char* name : {"lm_head.weight", "model.norm.weight"})
      EXPECT_LE(test::gradient_error(test::slot_of(pair.student.pool, name).as<double>(),
                                     test::slot_of(pair.student.pool, name, true).as<double>(), loss, 30),
                1e-8)
          << name;
  }
}

TEST(DistillHead, GradientsAreAddedToScoredRowsAlone) {
  OwnContext own("cpu");
  Pair pair(DType::f32, Trained::nothing);
  test::fill_normal(pair.dhidden, 3, 1);
  const std::vector<float> before = values(pair.dhidden);
  DistillHeadArgs args = pair.args();
  args.head.dhidden = pair.dhidden;
  pair.run(own.ctx, args);
  for (int32_t row = 0; row < 8; ++row) {
    const bool scored = std::ranges::find(pair.rows, row) != pair.rows.end();
    for (size_t c = 0; c < 16; ++c) {
      const size_t i = static_cast<size_t>(row) * 16 + c;
      EXPECT_EQ(pair.dhidden.as<float>()[i] != before[i], scored);
    }
  }
}

TEST(DistillHead, LossesHaveTheBitsOfScoreRows) {
  OwnContext own("cpu");
  Pair pair(DType::f32);
  pair.run(own.ctx, pair.args());
  const Tensor nll({4}, DType::f32), best({4}, DType::i32);
  const RowGroup group{0, 8};
  const TokenBatch batch = pair.batch({&group, 1});
  score_rows(pair.pass(own.ctx, batch), pair.student.decoder->head_part(), pair.hidden.view(),
             {.rows = pair.rows, .labels = pair.labels, .nll = nll, .best = best, .dhidden = {}});
  EXPECT_EQ(values(pair.nll), values(nll));
  EXPECT_TRUE(std::ranges::equal(pair.best.as<int32_t>(), best.as<int32_t>()));
}

TEST(DistillHead, ATeacherOfTheSameWeightsAddsNothing) {
  OwnContext own("cpu");
  Pair pair(DType::f32);
  DistillHeadArgs args = pair.args_under({.part = pair.student.decoder->head_part(),
                                          .read = {&pair.student.pool},
                                          .hidden = pair.hidden.view(),
                                          .rows = pair.rows});
  args.head.dhidden = pair.dhidden;
  pair.run(own.ctx, args, &pair.student.pool);
  EXPECT_EQ(values(pair.kl), std::vector<float>(4));
  const TensorView head = test::slot_of(pair.student.pool, "lm_head.weight", true);
  const std::vector<float> dhidden = values(pair.dhidden), dweight(head.as<float>().begin(), head.as<float>().end());

  pair.student.pool.zero_grads();
  const Tensor alone({8, 16}, DType::f32);
  const RowGroup group{0, 8};
  const TokenBatch batch = pair.batch({&group, 1});
  score_rows(pair.pass(own.ctx, batch, &pair.student.pool), pair.student.decoder->head_part(), pair.hidden.view(),
             {.rows = pair.rows, .labels = pair.labels, .nll = pair.nll, .best = pair.best, .dhidden = alone});
  EXPECT_EQ(dhidden, values(alone));
  EXPECT_EQ(dweight, std::vector<float>(head.as<float>().begin(), head.as<float>().end()));
}

TEST(DistillHead, GroupsThatReadOtherValuesAreScoredByThem) {
  OwnContext own("cpu");
  Pair pair(DType::f32);
  const Direction z{.seed = 7};
  const PoolRead up{&pair.student.pool, &z, 0.1f}, down{&pair.student.pool, &z, -0.1f};
  const RowGroup both[] = {{0, 3, nullptr, &up}, {3, 8, nullptr, &down}};
  std::vector<float> kls, nlls;
  for (const PoolRead* read : {&up, &down}) {
    const RowGroup group{0, 8, nullptr, read};
    const TokenBatch batch = pair.batch({&group, 1});
    distill_rows(pair.pass(own.ctx, batch), pair.student.decoder->head_part(), pair.hidden.view(), pair.args());
    for (size_t n = read == &up ? 0 : 2; n < (read == &up ? 2u : 4u); ++n) {  // rows 1 and 2; 4 and 7
      kls.push_back(pair.kl.as<float>()[n]);
      nlls.push_back(pair.nll.as<float>()[n]);
    }
  }
  const TokenBatch batch = pair.batch(both);
  distill_rows(pair.pass(own.ctx, batch), pair.student.decoder->head_part(), pair.hidden.view(), pair.args());
  for (size_t n = 0; n < 4; ++n) {
    EXPECT_NEAR(pair.kl.as<float>()[n], kls[n], 1e-5) << n;
    EXPECT_NEAR(pair.nll.as<float>()[n], nlls[n], 1e-5) << n;
  }
  pair.run(own.ctx, pair.args());
  EXPECT_GT(std::abs(pair.nll.as<float>()[0] - nlls[0]), 1e-3);
}

TEST(DistillHead, RefusesAnotherNumberOfTheTeachersRows) {
  OwnContext own("cpu");
  Pair pair(DType::f32);
  pair.teacher_rows.pop_back();
  try {
    pair.run(own.ctx, pair.args());
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("distill_rows: 3 rows of the teacher for 4 scored ones"));
  }
}

}  // namespace
}  // namespace tessera
