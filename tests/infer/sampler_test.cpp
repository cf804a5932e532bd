#include "infer/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "core/error.h"
#include "core/functions/functions.h"
#include "infer/plain_sampler.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;

constexpr int64_t kVocab = 50;

/// A request with this sampling, and the stop ids 3 and 40.
Request with(const Sampling& sampling) {
  Request request;
  request.sampling = sampling;
  request.stop_ids = {3, 40};
  return request;
}

std::optional<int32_t> choose(const std::vector<float>& logits, const Request& request, double uniform = 0,
                              const Ids& prompt = {}, const Ids& output = {}) {
  return TokenChooser(static_cast<int64_t>(logits.size())).choose(logits, request, prompt, output, uniform);
}

/// Shares of the tokens when `uniform` walks evenly over [0, 1).
std::vector<double> shares(const std::vector<float>& logits, const Sampling& sampling, int draws = 20000) {
  std::vector<double> share(logits.size(), 0);
  Request request;
  request.sampling = sampling;
  TokenChooser chooser(static_cast<int64_t>(logits.size()));
  for (int i = 0; i < draws; ++i)
    share[static_cast<size_t>(*chooser.choose(logits, request, {}, {}, (i + 0.5) / draws))] += 1.0 / draws;
  return share;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (const float x : logits) sum += p.emplace_back(std::exp(x / temperature));
  for (double& value : p) value /= sum;
  return p;
}

void expect_near(const std::vector<double>& a, const std::vector<double>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 2e-4) << i;
}

/// Logits of a toy vocabulary in steps of a half, so that many are equal; a sequence of few different tokens.
struct Row {
  std::vector<float> logits;
  Ids prompt, output;

  explicit Row(uint32_t seed, int64_t vocab = kVocab) {
    std::mt19937 random(seed);
    for (int64_t i = 0; i < vocab; ++i)
      logits.push_back(0.5f * std::round(std::normal_distribution<float>(0, 4)(random)));
    const auto tokens = [&](int most) {
      Ids ids(random() % most);
      for (int32_t& id : ids) id = static_cast<int32_t>(random() % 6);
      return ids;
    };
    prompt = tokens(12);
    output = tokens(9);
  }
};

/// The choice equals the plain one for draws all over the unit interval, its ends among them.
void expect_plain(const Row& row, const Request& request, TokenChooser& chooser, uint32_t seed) {
  const Shares p = plain_shares(row.logits, request, row.prompt, row.output);
  std::mt19937 random(seed);
  std::vector<double> draws = {0, 0x1p-53, 1 - 0x1p-53};
  while (draws.size() < 12) draws.push_back(std::uniform_real_distribution<double>()(random));
  for (const double u : draws)
    ASSERT_EQ(chooser.choose(row.logits, request, row.prompt, row.output, u), plain_draw(p, u)) << u;
}

using Setting = std::function<void(Sampling&)>;

/// Two or three values of each parameter; the first list is of temperatures.
const std::vector<std::vector<Setting>> kSettings = {
    {[](Sampling& s) { s.temperature = 0; }, [](Sampling& s) { s.temperature = 0.37; },
     [](Sampling& s) { s.temperature = 2.9; }},
    {[](Sampling& s) { s.top_k = 1; }, [](Sampling& s) { s.top_k = 7; }, [](Sampling& s) { s.top_k = 1000; }},
    {[](Sampling& s) { s.top_p = 0.0137; }, [](Sampling& s) { s.top_p = 0.7313; },
     [](Sampling& s) { s.top_p = 0.9931; }},
    {[](Sampling& s) { s.min_p = 0.0171; }, [](Sampling& s) { s.min_p = 1; }},
    {[](Sampling& s) { s.typical_p = 0.2113; }, [](Sampling& s) { s.typical_p = 0.9171; }},
    {[](Sampling& s) { s.repetition_penalty = 1.3; }, [](Sampling& s) { s.repetition_penalty = 0.7; }},
    {[](Sampling& s) { s.presence_penalty = 1.1; }, [](Sampling& s) { s.presence_penalty = -1.7; }},
    {[](Sampling& s) { s.frequency_penalty = 0.9; }, [](Sampling& s) { s.frequency_penalty = -0.3; }},
    {[](Sampling& s) { s.no_repeat_ngram_size = 1; }, [](Sampling& s) { s.no_repeat_ngram_size = 2; },
     [](Sampling& s) { s.no_repeat_ngram_size = 3; }},
    {[](Sampling& s) { s.min_tokens = 4; }, [](Sampling& s) { s.min_tokens = 100; }},
    {[](Sampling& s) {
       s.logit_bias = {{2, 3.25}, {17, -100}, {0, 1.5}};
     },
     [](Sampling& s) {
       s.logit_bias = {{3, 30}};
     }},
    {[](Sampling& s) { s.allowed_token_ids = Ids{0, 1, 2, 3, 4, 5, 9, 33}; },
     [](Sampling& s) {
       s.allowed_token_ids = Ids{3, 40};
     }},
    {[](Sampling& s) {
       s.bad_words = {{4}, {1, 2}, {0, 5, 3}};
     },
     [](Sampling& s) {
       s.bad_words = {{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}};
     }}};

TEST(Sampler, EqualsThePlainTableForEveryPairOfParameters) {
  TokenChooser chooser(kVocab);  // the same for all, as what it keeps from call to call must not show
  uint32_t seed = 0;
  int without_token = 0;
  for (size_t i = 0; i < kSettings.size(); ++i)
    for (size_t j = i; j < kSettings.size(); ++j)
      for (const Setting& first : kSettings[i])
        for (const Setting& second : kSettings[j])
          for (int repeat = 0; repeat < 6; ++repeat) {
            Sampling sampling{.temperature = 1.3};
            first(sampling);
            second(sampling);
            const Row row(++seed);
            const Request request = with(sampling);
            without_token += plain_shares(row.logits, request, row.prompt, row.output).empty();
            expect_plain(row, request, chooser, seed);
            ASSERT_FALSE(HasFatalFailure()) << "parameters " << i << " and " << j << ", seed " << seed;
          }
  EXPECT_GT(without_token, 0);
}

TEST(Sampler, EqualsThePlainTableWithAllParametersAtOnce) {
  TokenChooser chooser(kVocab);
  for (uint32_t seed = 1; seed <= 500; ++seed) {
    std::mt19937 random(seed);
    Sampling sampling{.temperature = 1.3};
    for (const auto& values : kSettings)
      if (random() % 2) values[random() % values.size()](sampling);
    expect_plain(Row(seed), with(sampling), chooser, seed);
    ASSERT_FALSE(HasFatalFailure()) << seed;
  }
}

// Cuts that take part of a long list, where few are sorted, and cuts that leave nearly all of it.
TEST(Sampler, EqualsThePlainTableOnALargeVocabulary) {
  constexpr int64_t kLarge = 49152;
  TokenChooser chooser(kLarge);
  for (const Sampling& sampling :
       {Sampling{.temperature = 1}, Sampling{.temperature = 0.8, .top_k = 50, .top_p = 0.9001},
        Sampling{.temperature = 1, .top_p = 0.9501}, Sampling{.temperature = 30, .top_p = 0.9501},
        Sampling{.temperature = 3, .top_k = 5000, .min_p = 0.0123}, Sampling{.temperature = 2, .typical_p = 0.9011},
        Sampling{.temperature = 4, .top_p = 1 - 1e-12}}) {
    expect_plain(Row(11, kLarge), with(sampling), chooser, 5);
    ASSERT_FALSE(HasFatalFailure()) << sampling.temperature << " " << sampling.top_k << " " << sampling.top_p;
  }
}

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 1.5f, 2.0f, -40.0f};

TEST(Sampler, TakesTheFirstOfTheMostLikelyTokensWithoutTemperature) {
  for (const double uniform : {0.0, 0.5, 0.999}) EXPECT_EQ(choose(kLogits, {}, uniform), 1);
  EXPECT_EQ(most_likely(std::vector<float>{-3, -1, -2, -1}), 1);
  EXPECT_EQ(most_likely(std::vector<float>{-1, -0.0f, 0.0f, -5}), 1);
  EXPECT_EQ(most_likely(std::vector<float>{-1, 0.0f, -0.0f}), 1);
  EXPECT_EQ(most_likely(std::vector<float>{std::numeric_limits<float>::lowest()}), 0);
}

TEST(Sampler, FindsTheMostLikelyOfAnyLengthAndPlace) {
  std::mt19937 random(3);
  for (size_t n = 1; n < 70; ++n)
    for (size_t at = 0; at < n; ++at) {
      std::vector<float> logits(n);
      for (float& x : logits) x = std::uniform_real_distribution<float>(-9, -2)(random);
      logits[at] = -1;
      ASSERT_EQ(most_likely(logits), static_cast<int32_t>(at));
    }
}

TEST(Sampler, DrawsInProportionToTheSoftmaxAtEveryTemperature) {
  for (const double temperature : {0.3, 1.0, 5.0})
    expect_near(shares(kLogits, {.temperature = temperature}), softmax(kLogits, temperature));
}

TEST(Sampler, TemperatureMayBeAsSmallOrLargeAsANumberCan) {
  expect_near(shares(kLogits, {.temperature = 1e-308, .typical_p = 0.9}, 1000), {0, 0.5, 0, 0, 0.5, 0});
  expect_near(shares({1, 2, 3, 4}, {.temperature = 1e308}, 1000), {0.25, 0.25, 0.25, 0.25});
}

TEST(Sampler, TopKKeepsTheMostLikelyTokensAndBreaksTiesByTheLowerId) {
  EXPECT_EQ(choose(kLogits, with({.temperature = 1, .top_k = 1}), 0.9), 1);
  expect_near(shares(kLogits, {.temperature = 2, .top_k = 3}),
              softmax({-INFINITY, 2.0f, -INFINITY, 1.5f, 2.0f, -INFINITY}, 2));
  expect_near(shares(kLogits, {.temperature = 1, .top_k = 100}), softmax(kLogits, 1));
  expect_near(shares(kLogits, {.temperature = 1, .top_k = -1}), softmax(kLogits, 1));
}

const std::vector<float> kShares = {std::log(0.1f), std::log(0.5f), std::log(0.15f), std::log(0.25f)};

TEST(Sampler, TopPKeepsTheFewestTokensThatReachTheShare) {
  expect_near(shares(kShares, {.temperature = 1, .top_p = 0.49}), {0, 1, 0, 0});
  expect_near(shares(kShares, {.temperature = 1, .top_p = 0.6}), {0, 2.0 / 3, 0, 1.0 / 3});
  expect_near(shares(kShares, {.temperature = 1, .top_p = 0.85}), {0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9});
  expect_near(shares(kShares, {.temperature = 1, .top_p = 0}), {0, 1, 0, 0});
}

TEST(Sampler, TopPCountsSharesOfWhatTopKLeft) {
  // of the two that top_k leaves, the first has 2/3
  expect_near(shares(kShares, {.temperature = 1, .top_k = 2, .top_p = 0.6}), {0, 1, 0, 0});
}

TEST(Sampler, TopPReachesAShareThatIsMetExactly) {
  expect_near(shares({0, 0, 0, 0}, {.temperature = 1, .top_p = 0.5}), {0.5, 0.5, 0, 0});
}

TEST(Sampler, MinPComparesWithTheMostLikelyToken) {
  expect_near(shares(kShares, {.temperature = 1, .min_p = 0.29}), {0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9});
  expect_near(shares(kLogits, {.temperature = 1, .min_p = 1}), {0, 0.5, 0, 0, 0.5, 0});
}

TEST(Sampler, TypicalPTakesTokensWhoseSurpriseIsNearTheEntropyFirst) {
  // The entropy is 1.208; surprises are 2.303, 0.693, 1.897 and 1.386.
  expect_near(shares(kShares, {.temperature = 1, .typical_p = 0.2}), {0, 0, 0, 1});
  expect_near(shares(kShares, {.temperature = 1, .typical_p = 0.3}), {0, 2.0 / 3, 0, 1.0 / 3});
  expect_near(shares(kShares, {.temperature = 1, .typical_p = 0.8}), {0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9});
}

TEST(Sampler, DrawsInAscendingIdUpToTheEndsOfTheUnitInterval) {
  const Request request = with({.temperature = 1});
  const std::vector<float> logits = {-2000, 1, 0, 1, -2000};
  EXPECT_EQ(choose(logits, request, 0), 1);
  EXPECT_EQ(choose(logits, request, 1 - 0x1p-53), 3);
  // Halves and quarters are exact: a running sum has to exceed the draw.
  EXPECT_EQ(choose({0, 0}, request, 0.5), 1);
  EXPECT_EQ(choose({0, 0}, request, 0.5 - 0x1p-53), 0);
  EXPECT_EQ(choose({0, 0, 0, 0}, request, 0.75), 3);
}

TEST(Sampler, BansTheLastTokenOfABadWordBehindItsOthers) {
  const std::vector<float> logits = {1, 2, 9, 3};
  const Request request = with({.bad_words = {{0, 1, 2}}});
  EXPECT_EQ(choose(logits, request, 0, {0, 1}), 3);
  EXPECT_EQ(choose(logits, request, 0, {0}, {1}), 3);
  EXPECT_EQ(choose(logits, request, 0, {}, {3, 0, 1}), 3);
  EXPECT_EQ(choose(logits, request, 0, {0, 1, 3}), 2);
  EXPECT_EQ(choose(logits, request, 0, {1}), 2);
  EXPECT_EQ(choose(logits, request), 2);
  EXPECT_EQ(choose(logits, with({.bad_words = {{2}}})), 3);
}

TEST(Sampler, BansTokensThatWouldRepeatAnNgram) {
  const std::vector<float> logits = {1, 2, 9, 3};
  const auto no_repeat = [](int64_t n) { return with({.no_repeat_ngram_size = n}); };
  EXPECT_EQ(choose(logits, no_repeat(1), 0, {2, 0}), 3);
  EXPECT_EQ(choose(logits, no_repeat(1), 0, {2}, {3}), 1);
  EXPECT_EQ(choose(logits, no_repeat(2), 0, {0, 2}, {1, 0}), 3);
  EXPECT_EQ(choose(logits, no_repeat(2), 0, {0, 2}, {1, 1}), 2);
  EXPECT_EQ(choose(logits, no_repeat(3), 0, {0, 1, 2}, {3, 0, 1}), 3);
  EXPECT_EQ(choose(logits, no_repeat(3), 0, {0, 1, 2}, {3, 1}), 2);
  EXPECT_EQ(choose(logits, no_repeat(3), 0, {0}), 2);
  // The newest tokens may overlap with those that they repeat.
  EXPECT_EQ(choose(logits, no_repeat(3), 0, {2, 2, 2}), 3);
}

TEST(Sampler, BansStopTokensUntilThereAreEnoughNewOnes) {
  std::vector<float> logits(kVocab, 0);
  logits[3] = 9;
  logits[40] = 8;
  logits[7] = 5;
  const Request request = with({.min_tokens = 2});
  EXPECT_EQ(choose(logits, request, 0, {1, 1, 1}, {}), 7);
  EXPECT_EQ(choose(logits, request, 0, {}, {1}), 7);
  EXPECT_EQ(choose(logits, request, 0, {}, {1, 1}), 3);
  // A stop token of the files that the model does not have is no fault.
  Request foreign = request;
  foreign.stop_ids = {1000, 3};
  EXPECT_EQ(choose(logits, foreign), 40);
}

TEST(Sampler, RepetitionPenaltyCountsATokenOnceAndPullsBothSignsDown) {
  const std::vector<float> logits = {4, 3.5f, -1, -1.5f};
  EXPECT_EQ(choose(logits, with({.repetition_penalty = 1.1}), 0, {0, 0, 0}), 0);  // 3.64 once, 3.01 three times
  EXPECT_EQ(choose(logits, with({.repetition_penalty = 1.2}), 0, {}, {0}), 1);
  EXPECT_EQ(choose(logits, with({.repetition_penalty = 2, .allowed_token_ids = Ids{2, 3}}), 0, {2}), 3);
}

TEST(Sampler, PresenceAndFrequencyPenaltiesCountTheOutputAlone) {
  const std::vector<float> logits = {4, 3.5f, 3};
  EXPECT_EQ(choose(logits, with({.presence_penalty = 0.7}), 0, {0, 0}), 0);
  EXPECT_EQ(choose(logits, with({.presence_penalty = 0.7}), 0, {}, {0}), 1);
  EXPECT_EQ(choose(logits, with({.frequency_penalty = 0.3}), 0, {}, {0}), 0);
  EXPECT_EQ(choose(logits, with({.frequency_penalty = 0.3}), 0, {}, {0, 0}), 1);
  EXPECT_EQ(choose(logits, with({.frequency_penalty = 0.3}), 0, {}, {0, 0, 1}), 0);
}

TEST(Sampler, BiasMovesALogitButDoesNotAllowWhatIsBanned) {
  const std::vector<float> logits = {4, 3, 2};
  EXPECT_EQ(choose(logits, with({.logit_bias = {{2, 2.5}}})), 2);
  EXPECT_EQ(choose(logits, with({.logit_bias = {{0, -1.5}}})), 1);
  EXPECT_EQ(choose(logits, with({.logit_bias = {{2, 50}}, .allowed_token_ids = Ids{0, 1}})), 0);
}

TEST(Sampler, SaysWhenNoTokenIsAllowed) {
  for (const double temperature : {0.0, 1.0}) {
    EXPECT_EQ(choose(kLogits, with({.temperature = temperature, .allowed_token_ids = Ids{}})), std::nullopt);
    EXPECT_EQ(choose(kLogits, with({.temperature = temperature, .allowed_token_ids = Ids{2}, .bad_words = {{2}}})),
              std::nullopt);
    EXPECT_EQ(choose(kLogits, with({.temperature = temperature, .no_repeat_ngram_size = 1}), 0.5, {0, 1, 2, 3, 4, 5}),
              std::nullopt);
    // Of two that are allowed, one is left.
    EXPECT_EQ(choose(kLogits, with({.temperature = temperature, .allowed_token_ids = Ids{2, 5}, .bad_words = {{2}}})),
              5);
  }
}

TEST(Sampler, NamesLogitsThatAreNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& logits : {std::vector<float>{nan, nan}, std::vector<float>{INFINITY, 0}, std::vector<float>{1, nan},
                             std::vector<float>{1, -INFINITY}})
    for (const Sampling& sampling : {Sampling{}, Sampling{.temperature = 1}, Sampling{.allowed_token_ids = Ids{0}}}) {
      try {
        choose(logits, with(sampling));
        FAIL() << "was taken";
      } catch (const UserError& error) {
        EXPECT_EQ(error.message(), "the model's logits are not finite");
      }
    }
}

TEST(Sampler, ChoosesWithoutAHistory) {
  EXPECT_EQ(choose_token(kLogits, {}, 0.7), 1);
  EXPECT_EQ(choose_token(kLogits, {.temperature = 1, .top_k = 2}, 0.7), 4);
}

TEST(Distribution, HoldsWhatIsLeftInAscendingId) {
  Distribution distribution;
  const std::vector<double> values = {1, 5, kMinusInfinity, 4, 5, 2};
  EXPECT_TRUE(distribution.assign(values, {.temperature = 2, .top_k = 3}));
  EXPECT_THAT(distribution.ids(), ElementsAre(1, 3, 4));
  EXPECT_EQ(distribution.weights()[0], 1);
  EXPECT_EQ(distribution.weights()[1], functions::exp(-0.5));
  EXPECT_FALSE(distribution.assign(std::vector<double>{kMinusInfinity, kMinusInfinity}, {.temperature = 1}));
}

}  // namespace
}  // namespace tessera
