// Figures of an evaluation: what files and readers are told, to the letter, and what is recalled from there.

#include "score/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "score/figures.h"
#include "support/scored.h"

namespace tessera {
namespace {

using test::expect_same_sums;
using test::some_sums;
using testing::ElementsAre;

/// Four tokens of which three are right, two completions, four examples.
LossSums round_sums() {
  LossSums sums;
  sums["nll"] = 4 * 2.5;
  sums["scored"] = 4;
  sums["correct"] = 3;
  sums["completions"] = 2;
  sums["exact"] = 1;
  sums["choices_nll"] = 4 * 0.5;
  sums["choices"] = 4;
  sums["choices_right"] = 1;
  return sums;
}

TEST(Figures, AreToldAsFarAsTheyGoAndTheLossFirst) {
  const auto keys = [](Told told) {
    std::vector<std::string> keys;
    for (const Figure& figure : figures_told(round_sums(), objective_of("tokens"), told)) keys.push_back(figure.key);
    return keys;
  };
  EXPECT_THAT(keys(Told::evaluations), ElementsAre("loss", "perplexity", "token_accuracy", "exact_match", "accuracy"));
  EXPECT_THAT(keys(Told::results), ElementsAre("loss", "token_accuracy", "exact_match", "accuracy"));
  EXPECT_THAT(keys(Told::outcome), ElementsAre("loss", "exact_match", "accuracy"));
}

TEST(Figures, ThatAreNotFiniteAreLeftOut) {
  LossSums sums = some_sums(1);
  sums["nll"] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(figures_told(sums, objective_of("tokens"), Told::results).front().key, "token_accuracy");
}

TEST(Evaluations, AreToldInOneLine) {
  EXPECT_EQ(evaluation_line(16, round_sums(), objective_of("tokens")).dump(),
            "{\"step\":16,\"split\":\"eval\",\"loss\":2.5,\"perplexity\":12.182493960703473,\"token_accuracy\":0.75,"
            "\"tokens\":4,\"exact_match\":0.5,\"completions\":2,\"accuracy\":0.25,\"choices\":4}");
  EXPECT_EQ(evaluation_text(16, round_sums(), objective_of("tokens")),
            "step 16  held-out loss 2.5000  perplexity 12.18  tokens right 75.0 %  completions right 50.0 % of 2  "
            "choices right 25.0 % of 4");
  EXPECT_EQ(result_line(round_sums(), objective_of("choices")).dump(),
            "{\"loss\":0.5,\"scored_tokens\":4,\"token_accuracy\":0.75,\"exact_match\":0.5,\"completions\":2,"
            "\"accuracy\":0.25,\"choices\":4}");
}

TEST(Evaluations, OfNothingSaySo) {
  EXPECT_EQ(evaluation_line(0, {}, objective_of("tokens")).dump(), "{\"step\":0,\"split\":\"eval\"}");
  EXPECT_EQ(evaluation_text(0, {}, objective_of("tokens")), "step 0  held-out  rows have nothing to score");
}

TEST(Evaluations, AreRecalledFromTheirLine) {
  for (const Objective& objective : objectives()) {
    const LossSums sums = some_sums(2),
                   told = sums_told(Json::parse(evaluation_line(3, sums, objective).dump(), "line"), objective);
    EXPECT_NEAR(objective.mean(told), objective.mean(sums), 1e-12);
    for (const SumSpec& spec : sum_specs())
      if (spec.kind == SumKind::count) {
        EXPECT_EQ(told[spec.name], sums[spec.name]) << spec.name;
      }
  }
  const LossSums told = sums_told(evaluation_line(3, some_sums(2), objective_of("tokens")), objective_of("tokens"));
  EXPECT_TRUE(std::isnan(told["choices_nll"])) << "the line does not tell it";
  expect_same_sums(sums_told(evaluation_line(3, {}, objective_of("tokens")), objective_of("tokens")), {});
}

TEST(Objectives, AreMeansOfSumsThatMetricsKeep) {
  for (const Objective& objective : objectives()) {
    EXPECT_EQ(&objective_of(objective.name), &objective);
    EXPECT_GT(objective.count(some_sums(1)), 0);
    EXPECT_EQ(objective.mean(some_sums(1)),
              objective.sum(some_sums(1)) / static_cast<double>(objective.count(some_sums(1))));
    EXPECT_TRUE(std::isnan(objective.mean({})));
    LossSums broken = some_sums(1);
    EXPECT_TRUE(are_finite(broken));
    broken[objective.loss_sum] = std::numeric_limits<double>::infinity();
    EXPECT_FALSE(are_finite(broken));
  }
}

}  // namespace
}  // namespace tessera
