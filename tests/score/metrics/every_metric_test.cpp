// What is asked of every metric, whichever are registered.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "score/figures.h"
#include "support/scored.h"

namespace tessera {
namespace {

using test::some_sums;

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

}  // namespace
}  // namespace tessera
