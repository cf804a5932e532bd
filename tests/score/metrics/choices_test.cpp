// Choices of label words: their loss and accuracy against computations by hand, and what they leave to the tokens.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "data/token_data.h"
#include "score/evaluate.h"
#include "support/scored.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

constexpr TokenRange kPlain{0, 0}, kFirst{0, 0, 0, false}, kFirstRight{0, 0, 0, true}, kSecond{0, 0, 1, false},
    kSecondRight{0, 0, 1, true}, kThird{0, 0, 2, false};

LossSums sums_of(const std::vector<TokenRange>& kinds, std::vector<double> nll, std::vector<int32_t> best = {}) {
  const PackedBatch batch = test::scored_documents(kinds);
  best.resize(nll.size(), -1);
  return sum_up(batch, scored_rows(batch), ConstView(nll.data(), {static_cast<int64_t>(nll.size())}, DType::f64), best);
}

TEST(ChoicesLoss, IsTheAnswersNegativeLogSoftmaxAmongTheChoices) {
  const LossSums sums = sums_of({kFirst, kSecondRight, kThird, kFirstRight, kSecond}, {2, 1.5, 4, 3, 0.25});
  const double first = 1.5 + std::log(std::exp(-2.0) + std::exp(-1.5) + std::exp(-4.0)),
               second = 3 + std::log(std::exp(-3.0) + std::exp(-0.25));
  EXPECT_NEAR(sums["choices_nll"], first + second, 1e-14);
  EXPECT_EQ(sums["choices"], 2);
  EXPECT_EQ(sums["choices_right"], 1);
}

TEST(ChoicesLoss, CountsOnlyTheAnswersAmongTokensAndCompletions) {
  const LossSums sums =
      sums_of({kFirst, kSecondRight, kFirstRight, kSecond, kPlain}, {2, 1.5, 3, 0.25, 8}, {7, 7, 0, 7, 7});
  EXPECT_EQ(sums["nll"], 1.5 + 3 + 8);
  EXPECT_EQ(sums["scored"], 3);
  EXPECT_EQ(sums["correct"], 2);
  EXPECT_EQ(sums["completions"], 3);
  EXPECT_EQ(sums["exact"], 2);
  EXPECT_EQ(sums["choices"], 2);
}

TEST(ChoicesLoss, OfPlainDocumentsIsNothing) {
  const LossSums sums = sums_of({kPlain, kPlain}, {1, 2});
  EXPECT_EQ(sums["choices"], 0);
  EXPECT_EQ(sums["choices_nll"], 0);
}

TEST(ChoicesLoss, StaysFiniteForUnlikelyChoicesAndDoesNotHideABrokenOne) {
  EXPECT_NEAR(sums_of({kFirst, kSecondRight}, {5000, 5001})["choices_nll"], 1 + std::log1p(std::exp(-1.0)), 1e-12);
  EXPECT_EQ(sums_of({kFirstRight, kSecond}, {0, 5000})["choices_nll"], 0);
  EXPECT_TRUE(std::isnan(sums_of({kFirstRight, kSecond}, {1, NAN})["choices_nll"]));
  EXPECT_TRUE(std::isnan(sums_of({kFirst, kSecondRight}, {NAN, 1})["choices_nll"]));
}

TEST(ChoicesLoss, ATieIsNotRight) { EXPECT_EQ(sums_of({kFirstRight, kSecond}, {1, 1})["choices_right"], 0); }

TEST(ChoicesLoss, TellsTwoExamplesOfOneRowApartAlsoWhenTheRowComesTwice) {
  const LossSums once = sums_of({kFirst, kSecondRight}, {1, 2}),
                 twice = sums_of({kFirst, kSecondRight, kFirst, kSecondRight}, {1, 2, 1, 2});
  EXPECT_EQ(twice["choices"], 2);
  EXPECT_EQ(twice["choices_nll"], 2 * once["choices_nll"]);
}

TEST(ChoicesLoss, RefusesAnExampleThatIsNotWhole) {
  EXPECT_THROW(sums_of({kFirst, kSecond}, {1, 2}), InternalError);
  EXPECT_THROW(sums_of({kSecondRight}, {1}), InternalError);
}

/// Examples of three choices: a prompt of some tokens with the words {5}, {6, 7} and {8, 9, 10}.
TokenData examples_of_three(int64_t examples) {
  TokenData data;
  data.hash = "made up";
  data.choices = 3;
  for (int64_t e = 0; e < examples; ++e) {
    for (const std::vector<int32_t>& word : {std::vector<int32_t>{5}, {6, 7}, {8, 9, 10}}) {
      for (int64_t t = 0; t < 2 + e % 3; ++t) data.tokens.push_back(static_cast<int32_t>((5 * e + 3 * t) % 23));
      data.scored.resize(data.tokens.size(), 0);
      data.tokens.insert(data.tokens.end(), word.begin(), word.end());
      data.scored.resize(data.tokens.size(), 1);
      data.ends.push_back(static_cast<int64_t>(data.tokens.size()));
    }
    data.answers.push_back(static_cast<int32_t>(e % 3));
  }
  return data;
}

class Choices : public testing::Test {
 protected:
  Choices() : model_(test::tiny_settings(folder_.path())) { model_.assemble(own_.ctx); }

  /// −log p of the scored tokens of document d, from the model's logits alone.
  double nll_of(const TokenData& data, int64_t d) {
    const int64_t begin = d == 0 ? 0 : data.ends[d - 1];
    const std::vector<int32_t> ids(data.tokens.begin() + begin, data.tokens.begin() + data.ends[d]);
    const Tensor logits = test::logits_of(own_.ctx, model_, ids);
    const int64_t vocab = logits.shape()[1];
    double nll = 0;
    for (size_t t = 1; t < ids.size(); ++t) {
      if (!data.scored[begin + static_cast<int64_t>(t)]) continue;
      const auto at = [&](int64_t id) { return element(logits, (static_cast<int64_t>(t) - 1) * vocab + id); };
      double sum = 0;
      for (int64_t id = 0; id < vocab; ++id) sum += std::exp(at(id));
      nll += std::log(sum) - at(ids[t]);
    }
    return nll;
  }

  test::TemporaryFolder folder_;
  test::OwnContext own_;
  Model model_;
};

TEST_F(Choices, OfAModelAreWhatItsLogitsSay) {
  const TokenData data = examples_of_three(30);
  double loss = 0, answers = 0;
  int64_t right = 0;
  for (int64_t e = 0; e < 30; ++e) {
    double likelihood = 0;
    std::vector<double> nll;
    for (int64_t c = 0; c < 3; ++c) nll.push_back(nll_of(data, 3 * e + c));
    for (const double each : nll) likelihood += std::exp(-each);
    const double answer = nll[data.answers[e]];
    loss += answer + std::log(likelihood);
    answers += answer;
    right += answer == *std::min_element(nll.begin(), nll.end());
  }
  const auto world = self_communicator();
  const LossSums sums = evaluate(own_.ctx, model_, PackedDataset(data, 40, 3), *world, {}, 2);
  EXPECT_NEAR(sums["choices_nll"], loss, 1e-5 * loss);
  EXPECT_NEAR(sums["nll"], answers, 1e-5 * answers);
  EXPECT_EQ(sums["choices"], 30);
  EXPECT_EQ(sums["choices_right"], right);
  EXPECT_GT(right, 0);
  EXPECT_LT(right, 30);
  EXPECT_EQ(sums["scored"], 10 * (1 + 2 + 3));
  EXPECT_EQ(sums["completions"], 30);
}

TEST_F(Choices, GiveTheAnswersTheSumsThatTheyHaveAlone) {
  const TokenData data = examples_of_three(30);
  const auto world = self_communicator();
  const LossSums all = evaluate(own_.ctx, model_, PackedDataset(data, 40, 3), *world, {}, 2),
                 alone = evaluate(own_.ctx, model_, PackedDataset(answers_only(data), 40, 3), *world, {}, 2);
  EXPECT_NEAR(all["nll"], alone["nll"], 1e-5 * alone["nll"]);
  EXPECT_EQ(all["scored"], alone["scored"]);
  EXPECT_EQ(all["correct"], alone["correct"]);
  EXPECT_EQ(all["exact"], alone["exact"]);
  EXPECT_EQ(alone["choices"], 0);
}

TEST_F(Choices, AreTheSameSumsHoweverTheRowsAreSharedOut) {
  const PackedDataset data(examples_of_three(50), 32, 3);
  const auto world = self_communicator();
  const LossSums whole = evaluate(own_.ctx, model_, data, *world, {}, 4);
  for (const int ranks : {2, 3}) {
    LossSums sums;
    for (int rank = 0; rank < ranks; ++rank) {
      const RowShare share = row_share(data.rows(), {rank, ranks});
      std::vector<int64_t> rows;
      for (int64_t row = share.begin; row < share.end; ++row) rows.push_back(row);
      sums = score_batch(own_.ctx, model_, data.batch(rows, share.begin), {}, {}, std::move(sums));
    }
    EXPECT_NEAR(sums["choices_nll"], whole["choices_nll"], 1e-6 * whole["choices_nll"]);
    EXPECT_EQ(sums["choices"], 50);
    EXPECT_EQ(sums["choices_right"], whole["choices_right"]);
  }
}

}  // namespace
}  // namespace tessera
