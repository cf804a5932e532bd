// Metrics, whichever are registered: the sums of two batches are those of both together, survive files and ranks by name, and give
// figures that exist only where something was scored.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "score/batch_loss.h"
#include "score/evaluation.h"
#include "score/figures.h"
#include "support/scored.h"

namespace tessera {
namespace {

using testing::ElementsAre;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// Sums of a text, a completion, and an example of two choices, each token scored as the seed says.
LossSums some_sums(int seed) {
  const PackedBatch batch = test::one_of_each();
  const ScoredRows scored = scored_rows(batch);
  std::vector<double> nll;
  std::vector<int32_t> best = scored.labels;
  for (size_t i = 0; i < scored.rows.size(); ++i) nll.push_back(0.25 + static_cast<double>((i * 7 + seed * 5) % 11));
  best[static_cast<size_t>(seed) % best.size()] = -1;
  return sum_up(batch, scored, ConstView(nll.data(), {static_cast<int64_t>(nll.size())}, DType::f64), best);
}

void expect_equal(const LossSums& a, const LossSums& b) {
  for (const SumSpec& spec : sum_specs()) EXPECT_EQ(a[spec.name], b[spec.name]) << spec.name;
}

class EachMetric : public testing::TestWithParam<Metric> {};

TEST_P(EachMetric, KeepsTheSumsThatItsFiguresAreMadeOf) {
  const Metric& metric = GetParam();
  std::set<std::string_view> names, counts;
  for (const SumSpec& sum : metric.sums) (sum.kind == SumKind::count ? counts : names).insert(sum.name);
  names.insert(counts.begin(), counts.end());
  EXPECT_TRUE(counts.count(metric.count.sum));
  for (const FigureSpec& figure : metric.figures) {
    EXPECT_TRUE(names.count(figure.sum)) << figure.key;
    EXPECT_EQ(figure.form == Form::share, counts.count(figure.sum) > 0) << figure.key << ": a share is of a count";
  }
}

TEST_P(EachMetric, FindsSomethingInABatchOfEveryKind) {
  const LossSums sums = some_sums(1);
  EXPECT_GT(sums[GetParam().count.sum], 0);
  for (const FigureSpec& spec : GetParam().figures) EXPECT_TRUE(figure_of(sums, GetParam(), spec)) << spec.key;
}

TEST_P(EachMetric, OfNothingGivesNoFigure) {
  for (const FigureSpec& spec : GetParam().figures) EXPECT_FALSE(figure_of(LossSums(), GetParam(), spec)) << spec.key;
}

TEST_P(EachMetric, WhoseSumsAreNotKnownGivesNoFigure) {
  Json kept = Json::object();
  for (const SumSpec& spec : sum_specs())
    if (std::none_of(GetParam().sums.begin(), GetParam().sums.end(), [&](auto& own) { return own.name == spec.name; }))
      kept.set(std::string(spec.name), 1);
  const LossSums sums = loss_sums_of(kept);
  for (const SumSpec& own : GetParam().sums) EXPECT_TRUE(std::isnan(sums[own.name])) << own.name;
  for (const FigureSpec& spec : GetParam().figures) EXPECT_FALSE(figure_of(sums, GetParam(), spec)) << spec.key;
}

INSTANTIATE_TEST_SUITE_P(Registered, EachMetric, testing::ValuesIn(metrics()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Metrics, ShareNoNameOfASumOrOfAFigure) {
  std::set<std::string_view> sums, keys{"step", "split", "loss", "scored_tokens", "before"};
  for (const Metric& metric : metrics()) {
    for (const SumSpec& sum : metric.sums) EXPECT_TRUE(sums.insert(sum.name).second) << sum.name;
    EXPECT_TRUE(keys.insert(metric.count.key).second) << metric.count.key;
    for (const FigureSpec& figure : metric.figures) EXPECT_TRUE(keys.insert(figure.key).second) << figure.key;
  }
}

TEST(LossSums, OfTwoBatchesAreThoseOfBoth) {
  LossSums both = some_sums(1);
  both += some_sums(4);
  for (const SumSpec& spec : sum_specs())
    EXPECT_EQ(both[spec.name], some_sums(1)[spec.name] + some_sums(4)[spec.name]) << spec.name;
}

TEST(LossSums, AreKeptByName) {
  LossSums sums = some_sums(3);
  sums["nll"] = 1.0 / 3;
  expect_equal(loss_sums_of(Json::parse(to_json(sums).dump(), "sums")), sums);
}

TEST(LossSums, AreWrittenAsFilesOfEveryVersionHaveThem) {
  LossSums sums;
  sums["nll"] = 48.25;
  sums["scored"] = 8;
  sums["choices_nll"] = 3;
  EXPECT_EQ(to_json(sums).dump(),
            "{\"nll\":48.25,\"scored\":8,\"correct\":0,\"completions\":0,\"exact\":0,\"choices_nll\":3.0,"
            "\"choices\":0,\"choices_right\":0}");
}

TEST(LossSums, ThatAFileDoesNotHoldAreNotKnownAndStaySo) {
  const Json older = Json::object().set("nll", 2.5).set("scored", 2).set("correct", 1);
  const Json kept = to_json(loss_sums_of(older));
  EXPECT_EQ(kept.find("choices"), nullptr);
  EXPECT_EQ(kept.at("scored").as_integer(), 2);
  EXPECT_FALSE(loss_sums_of(kept).are_finite());
}

TEST(LossSums, WithANameThatNoMetricKeepsAreRefused) { EXPECT_THROW(LossSums()["ranks"], InternalError); }

TEST(Figures, AreToldAsFarAsTheyGoAndTheLossFirst) {
  const auto keys = [](Told told) {
    std::vector<std::string> keys;
    for (const Figure& figure : figures_told(some_sums(1), objective_of("tokens"), told)) keys.push_back(figure.key);
    return keys;
  };
  EXPECT_THAT(keys(Told::evaluations), ElementsAre("loss", "perplexity", "token_accuracy", "exact_match", "accuracy"));
  EXPECT_THAT(keys(Told::results), ElementsAre("loss", "token_accuracy", "exact_match", "accuracy"));
  EXPECT_THAT(keys(Told::outcome), ElementsAre("loss", "exact_match", "accuracy"));
}

TEST(Figures, ThatAreNotFiniteAreLeftOut) {
  LossSums sums = some_sums(1);
  sums["nll"] = kUnknown;
  EXPECT_EQ(figures_told(sums, objective_of("tokens"), Told::results).front().key, "token_accuracy");
}

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
  expect_equal(sums_told(evaluation_line(3, {}, objective_of("tokens")), objective_of("tokens")), {});
}

TEST(Objectives, AreMeansOfSumsThatMetricsKeep) {
  for (const Objective& objective : objectives()) {
    EXPECT_EQ(&objective_of(objective.name), &objective);
    EXPECT_GT(objective.count(some_sums(1)), 0);
    EXPECT_EQ(objective.mean(some_sums(1)),
              objective.sum(some_sums(1)) / static_cast<double>(objective.count(some_sums(1))));
    EXPECT_TRUE(std::isnan(objective.mean({})));
  }
}

}  // namespace
}  // namespace tessera
