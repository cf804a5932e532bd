// The stability metric: its worked example, and what it must not depend on.

#include "compress/stability.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "core/error.h"

namespace tessera {
namespace {

using testing::HasSubstr;
using Results = std::vector<QuestionResult>;

/// A question of two options whose perplexities lie d to either side of 3, so that d is their deviation.
QuestionResult question(const std::string& name, double d, bool is_right) {
  return {.name = name, .nll = {std::log(3 - d), std::log(3 + d)}, .is_right = is_right};
}

/// Deviations 0, 1 and 2; the models agree on the second and the third.
Results original() { return {question("a", 0, true), question("b", 1, true), question("c", 2, false)}; }
Results compressed() { return {question("a", 0, false), question("b", 1, true), question("c", 2, false)}; }

std::string fault(const Results& before, const Results& after) {
  try {
    stability_of("needle_8", before, after);
  } catch (const UserError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Stability, IsThatOfTheWorkedExample) {
  const Stability found = stability_of("task", original(), compressed());
  const double sum = 1 + std::exp(1.0) + std::exp(2.0);
  EXPECT_NEAR(found.stability, (std::exp(1.0) + std::exp(2.0)) / sum, 1e-12);
  EXPECT_NEAR(found.stability, 0.9100, 5e-5);
  EXPECT_NEAR(found.agreement, 2.0 / 3, 1e-15);
  EXPECT_NEAR(found.effective, sum * sum / (1 + std::exp(2.0) + std::exp(4.0)), 1e-12);
  // d of nll: 0, log(2)/2 and log(5)/2.
  const double by_nll = std::sqrt(2.0) + std::sqrt(5.0);
  EXPECT_NEAR(found.stability_nll, by_nll / (1 + by_nll), 1e-12);
}

TEST(Stability, OfAModelWithItselfIsOne) {
  const Stability found = stability_of("task", original(), original());
  EXPECT_EQ(found.stability, 1);
  EXPECT_EQ(found.stability_nll, 1);
  EXPECT_EQ(found.agreement, 1);
}

TEST(Stability, IsTheSameForEveryOrderOfTheQuestions) {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> draw(0, 3);
  Results before, after;
  for (int i = 0; i < 40; ++i) {
    const std::vector<double> nll = {draw(random), draw(random), draw(random), draw(random)};
    before.push_back({.name = "question " + std::to_string(i), .nll = nll, .is_right = random() % 2 == 0});
    after.push_back({.name = before.back().name, .nll = nll, .is_right = random() % 2 == 0});
  }
  const Stability first = stability_of("task", before, after);
  for (int times = 0; times < 20; ++times) {
    std::ranges::shuffle(before, random);
    std::ranges::shuffle(after, random);
    const Stability found = stability_of("task", before, after);
    EXPECT_EQ(found.stability, first.stability);
    EXPECT_EQ(found.stability_nll, first.stability_nll);
    EXPECT_EQ(found.effective, first.effective);
  }
  EXPECT_LT(first.effective, 40);
  EXPECT_GE(first.effective, 1);
}

TEST(Stability, IsAgreementWhereNoQuestionCountsMore) {
  Results before = original(), after = compressed();
  for (Results* results : {&before, &after})
    for (QuestionResult& result : *results) result.nll = {0.5, 0.5, 0.5};
  const Stability found = stability_of("task", before, after);
  EXPECT_NEAR(found.stability, found.agreement, 1e-15);
  EXPECT_NEAR(found.stability_nll, found.agreement, 1e-15);
  EXPECT_NEAR(found.effective, 3, 1e-12);
}

TEST(Stability, OneHugePerplexityTakesAllTheWeightAndIsTold) {
  Results before = original(), after = compressed();
  before[1].nll = {0, 700};
  const Stability found = stability_of("task", before, after);
  EXPECT_EQ(found.stability, 1);
  EXPECT_EQ(found.effective, 1);
  EXPECT_LT(found.stability_nll, 1 + 1e-12);
}

TEST(Stability, RefusesWhatCannotBeCompared) {
  Results one = original();
  one[1].nll = {0.5};
  EXPECT_THAT(fault(one, compressed()), HasSubstr("stability: task needle_8 has one option"));
  Results other = compressed();
  other[2].name = "d";
  EXPECT_THAT(fault(original(), other), HasSubstr("has question \"c\" in one list of results alone"));
  other.pop_back();
  EXPECT_THAT(fault(original(), other), HasSubstr("has question \"c\" in one list of results alone"));
  Results twice = original();
  twice[1].name = "a";
  Results twice_after = compressed();
  twice_after[1].name = "a";
  EXPECT_THAT(fault(twice, twice_after), HasSubstr("has question \"a\" twice"));
  Results more = compressed();
  more[0].nll.push_back(1);
  EXPECT_THAT(fault(original(), more), HasSubstr("has other options of question \"a\""));
  EXPECT_THAT(fault({}, {}), HasSubstr("has no questions"));
  Results infinite = original();
  infinite[0].nll = {1, 1000};
  EXPECT_THAT(fault(infinite, compressed()), HasSubstr("whose perplexity is not finite"));
}

}  // namespace
}  // namespace tessera
