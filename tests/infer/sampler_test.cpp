#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/error.h"

namespace tessera {
namespace {

/// Shares of the tokens when `uniform` walks evenly over [0, 1).
std::vector<double> shares(const std::vector<float>& logits, const Sampling& sampling, int draws = 20000) {
  std::vector<double> share(logits.size(), 0);
  for (int i = 0; i < draws; ++i)
    share[static_cast<size_t>(choose_token(logits, sampling, (i + 0.5) / draws))] += 1.0 / draws;
  return share;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  for (const float x : logits) p.push_back(std::exp(x / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 2e-4) << i;
}

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 1.5f, 2.0f, -40.0f};

TEST(Sampler, TakesTheFirstOfTheMostLikelyTokensWithoutTemperature) {
  for (const double uniform : {0.0, 0.5, 0.999}) EXPECT_EQ(choose_token(kLogits, {}, uniform), 1);
}

TEST(Sampler, DrawsInProportionToTheSoftmaxAtEveryTemperature) {
  for (const double temperature : {0.3, 1.0, 5.0})
    expect_near(shares(kLogits, {.temperature = temperature}), softmax(kLogits, temperature));
}

TEST(Sampler, TopKKeepsTheMostLikelyTokensAndBreaksTiesByTheLowerId) {
  EXPECT_EQ(choose_token(kLogits, {.temperature = 1, .top_k = 1}, 0.9), 1);
  expect_near(shares(kLogits, {.temperature = 2, .top_k = 3}),
              softmax({-INFINITY, 2.0f, -INFINITY, 1.5f, 2.0f, -INFINITY}, 2));
  expect_near(shares(kLogits, {.temperature = 1, .top_k = 100}), softmax(kLogits, 1));
}

TEST(Sampler, TopPKeepsTheFewestTokensThatReachTheShare) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.15f), std::log(0.25f)};
  expect_near(shares(logits, {.temperature = 1, .top_p = 0.49}), {0, 1, 0, 0});
  expect_near(shares(logits, {.temperature = 1, .top_p = 0.6}), {0, 2.0 / 3, 0, 1.0 / 3});
  expect_near(shares(logits, {.temperature = 1, .top_p = 0.85}), {0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9});
  expect_near(shares(logits, {.temperature = 1, .top_p = 0}), {0, 1, 0, 0});
}

TEST(Sampler, TopPCountsSharesOfWhatTopKLeft) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.15f), std::log(0.25f)};
  // of the two that top_k leaves, the first has 2/3
  expect_near(shares(logits, {.temperature = 1, .top_k = 2, .top_p = 0.6}), {0, 1, 0, 0});
}

TEST(Sampler, NamesLogitsThatAreNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& logits : {std::vector<float>{nan, nan}, std::vector<float>{INFINITY, 0}})
    for (const double temperature : {0.0, 1.0})
      EXPECT_THROW(choose_token(logits, {.temperature = temperature}, 0.5), UserError);
  EXPECT_THROW(choose_token(std::vector<float>{1, nan}, {.temperature = 1}, 0.5), UserError);
}

}  // namespace
}  // namespace tessera
