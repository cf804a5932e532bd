#include "infer/beams.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/functions/functions.h"
#include "core/random.h"
#include "data/made_tokenizers.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::SizeIs;

constexpr int32_t kVocab = 50;

/// A made-up model: the logits behind a prefix are a function of its tokens.
struct ToyModel {
  uint64_t seed = 1;
  double scale = 5;
  int32_t vocab = kVocab;

  std::vector<float> logits(const Ids& prefix) const {
    uint64_t hash = seed;
    for (const int32_t id : prefix) hash = mix64(hash ^ static_cast<uint64_t>(id));
    std::vector<float> row(vocab);
    for (int32_t id = 0; id < vocab; ++id)
      row[id] = static_cast<float>(scale) * to_unit(static_cast<uint32_t>(mix64(hash + id) >> 32));
    return row;
  }
};

RowNormaliser normaliser_of(const std::vector<float>& row) {
  const float max = *std::max_element(row.begin(), row.end());
  float sum = 0;
  for (const float x : row) sum += functions::exp(x - max);
  return {max, functions::log(sum)};
}

/// Runs the model for a search until it is done.
std::vector<Output> search(const Request& request, const ToyModel& model, int64_t most_tokens,
                           const ContinuationText& text = {}) {
  BeamScratch scratch(model.vocab);
  BeamSearch beams(request, scratch, most_tokens, text);
  std::vector<Ids> prefixes = {request.prompt};
  while (!beams.done()) {
    std::vector<std::vector<float>> logits;
    std::vector<BeamRow> rows;
    for (const Ids& prefix : prefixes) logits.push_back(model.logits(prefix));
    for (const auto& row : logits) rows.push_back({row, normaliser_of(row)});
    std::vector<Ids> next;
    for (const BeamMove& move : beams.advance(rows)) {
      next.push_back(prefixes.at(static_cast<size_t>(move.parent)));
      next.back().push_back(move.token);
    }
    prefixes = std::move(next);
  }
  return beams.outputs();
}

/// A finished or running sequence; `length` counts a stop token that its ids do not have.
struct Sequence {
  Ids ids;
  double sum = 0;
  int64_t length = 0;
  bool stopped = false;

  double score(double penalty) const { return sum / functions::pow(static_cast<double>(length), penalty); }
};

bool is_stop(const Request& request, int32_t id) {
  return std::count(request.stop_ids.begin(), request.stop_ids.end(), id) > 0;
}

/// The logprobs of all tokens behind a sequence.
std::vector<float> logprobs_behind(const Sequence& s, const Request& request, const ToyModel& model) {
  Ids prefix = request.prompt;
  prefix.insert(prefix.end(), s.ids.begin(), s.ids.end());
  std::vector<float> row = model.logits(prefix);
  const RowNormaliser normaliser = normaliser_of(row);
  for (float& x : row) x = normaliser.logprob(x);
  return row;
}

Sequence continued(Sequence s, int32_t id, float logprob, const Request& request) {
  s.sum += logprob;
  ++s.length;
  s.stopped = is_stop(request, id);
  if (!s.stopped) s.ids.push_back(id);
  return s;
}

/// The best of all sequences that end, or have `depth` tokens.
std::vector<Sequence> best_of_all(const Request& request, const ToyModel& model, int64_t depth) {
  const double penalty = request.beams.length_penalty;
  std::vector<Sequence> best;
  const auto is_better = [&](const Sequence& a, const Sequence& b) { return a.score(penalty) > b.score(penalty); };
  const auto offer = [&](const Sequence& s) {
    best.insert(std::upper_bound(best.begin(), best.end(), s, is_better), s);
    if (best.size() > static_cast<size_t>(request.n)) best.pop_back();
  };
  const std::function<void(const Sequence&)> visit = [&](const Sequence& s) {
    const std::vector<float> row = logprobs_behind(s, request, model);
    for (int32_t id = 0; id < model.vocab; ++id) {
      const bool ends = is_stop(request, id) || s.length + 1 == depth;
      // Most are far from the best.
      const Sequence reached{.ids = {}, .sum = s.sum + row[id], .length = s.length + 1};
      if (ends && best.size() == static_cast<size_t>(request.n) && !is_better(reached, best.back())) continue;
      const Sequence next = continued(s, id, row[id], request);
      ends ? offer(next) : visit(next);
    }
  };
  visit({});
  return best;
}

Request request_for(Beams beams, int64_t n, Ids stop_ids) {
  Request request;
  request.prompt = {7, 8};
  request.beams = beams;
  request.n = n;
  request.stop_ids = std::move(stop_ids);
  request.max_tokens = 1;  // so that the number of tokens that is searched counts as asked for
  return request;
}

void expect_equal(const std::vector<Output>& outputs, const std::vector<Sequence>& expected) {
  ASSERT_EQ(outputs.size(), expected.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    EXPECT_EQ(outputs[i].ids, expected[i].ids) << i;
    EXPECT_EQ(outputs[i].cumulative_logprob, expected[i].sum) << i;
    EXPECT_EQ(outputs[i].finish, expected[i].stopped ? Finish::stop : Finish::max_new_tokens) << i;
  }
}

// Of 6.25 million sequences. With 2,500 beams every one is reached that can be among the best; a few are enough where
// the model is sure of itself.
TEST(BeamSearch, FindsTheBestOfAllSequences) {
  const Request wide = request_for({.width = 2500, .early_stopping = EarlyStopping::never}, 6, {0, 11});
  expect_equal(search(wide, ToyModel{}, 4), best_of_all(wide, ToyModel{}, 4));
  for (const double penalty : {0.0, 1.5}) {
    const Request narrow =
        request_for({.width = 60, .length_penalty = penalty, .early_stopping = EarlyStopping::never}, 6, {0, 11});
    const ToyModel sure{.seed = 2, .scale = 30};
    expect_equal(search(narrow, sure, 4), best_of_all(narrow, sure, 4));
  }
}

/// The same search once more: whole sorts, and sequences that are marked rather than taken out of lists.
std::vector<Sequence> plain_search(const Request& request, const ToyModel& model, int64_t most_tokens) {
  const auto width = static_cast<size_t>(request.beams.width);
  const double penalty = request.beams.length_penalty;
  const auto sort_by_score = [&](std::vector<Sequence>& list) {
    std::stable_sort(list.begin(), list.end(),
                     [&](const Sequence& a, const Sequence& b) { return a.score(penalty) > b.score(penalty); });
    if (list.size() > width) list.resize(width);
  };
  std::vector<Sequence> running = {{}}, finished;
  for (int64_t length = 1; length <= most_tokens && !running.empty(); ++length) {
    std::vector<Sequence> all;
    for (const Sequence& s : running) {
      const std::vector<float> row = logprobs_behind(s, request, model);
      for (int32_t id = 0; id < model.vocab; ++id) all.push_back(continued(s, id, row[id], request));
    }
    std::stable_sort(all.begin(), all.end(), [](const Sequence& a, const Sequence& b) { return a.sum > b.sum; });
    for (size_t i = 0; i < std::min(width, all.size()); ++i)
      if (all[i].stopped || length == most_tokens) finished.push_back(all[i]);
    sort_by_score(finished);
    std::erase_if(all, [](const Sequence& s) { return s.stopped; });
    if (all.size() > width) all.resize(width);
    running = all;
    if (finished.size() < width) continue;
    const bool far = request.beams.early_stopping == EarlyStopping::never && penalty > 0;
    Sequence hope = running.front();
    hope.length = far ? most_tokens : length;
    if (request.beams.early_stopping == EarlyStopping::yes || hope.score(penalty) <= finished.back().score(penalty))
      break;
  }
  finished.resize(std::min(finished.size(), static_cast<size_t>(request.n)));
  return finished;
}

TEST(BeamSearch, EqualsAPlainSearchForEveryWidthPenaltyAndWayToStop) {
  int stopped_early = 0;
  uint64_t seed = 0;
  for (const int64_t width : {1, 2, 3, 5})
    for (const double penalty : {-0.7, 0.0, 1.0, 2.3})
      for (const EarlyStopping early : {EarlyStopping::no, EarlyStopping::yes, EarlyStopping::never})
        for (int repeat = 0; repeat < 12; ++repeat) {
          const ToyModel model{.seed = ++seed, .scale = 4};
          Ids stops = {4};
          for (int32_t id = 10; id < 10 + repeat % 4 * 3; ++id) stops.push_back(id);
          const Request request =
              request_for({.width = width, .length_penalty = penalty, .early_stopping = early}, width, stops);
          const auto expected = plain_search(request, model, 9);
          stopped_early += static_cast<size_t>(width) == expected.size() &&
                           std::all_of(expected.begin(), expected.end(), [](const auto& s) { return s.length < 9; });
          expect_equal(search(request, model, 9), expected);
          ASSERT_FALSE(HasFailure()) << "width " << width << ", penalty " << penalty << ", seed " << seed;
        }
  EXPECT_GT(stopped_early, 100);
}

TEST(BeamSearch, OfOneBeamThatStopsEarlyIsGreedy) {
  for (uint64_t seed = 1; seed < 40; ++seed) {
    const ToyModel model{.seed = seed};
    const Request request = request_for({.width = 1, .early_stopping = EarlyStopping::yes}, 1, {2, 3, 4, 5, 6});
    Ids greedy;
    bool stopped = false;
    while (greedy.size() < 12 && !stopped) {
      Ids prefix = request.prompt;
      prefix.insert(prefix.end(), greedy.begin(), greedy.end());
      const std::vector<float> row = model.logits(prefix);
      const auto best = static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
      stopped = 2 <= best && best <= 6;
      if (!stopped) greedy.push_back(best);
    }
    const auto outputs = search(request, model, 12);
    ASSERT_THAT(outputs, SizeIs(1));
    EXPECT_EQ(outputs[0].ids, greedy);
    EXPECT_EQ(outputs[0].finish, stopped ? Finish::stop : Finish::max_new_tokens);
  }
}

/// One step with these rows, whose normalisers say that logits are logprobs already.
std::vector<BeamMove> step(BeamSearch& beams, const std::vector<std::vector<float>>& logits) {
  std::vector<BeamRow> rows;
  for (const auto& row : logits) rows.push_back({row, {0, 0}});
  return beams.advance(rows);
}

TEST(BeamSearch, SaysWhichBeamGoesOnWithWhichToken) {
  const Request request = request_for({.width = 2}, 2, {});
  BeamScratch scratch(4);
  BeamSearch beams(request, scratch, 3);
  EXPECT_THAT(step(beams, {{-1, -4, -2, -8}}), ElementsAre(BeamMove{0, 0}, BeamMove{0, 2}));
  EXPECT_THAT(step(beams, {{-7, -5, -6, -9}, {-1, -2, -8, -8}}), ElementsAre(BeamMove{1, 0}, BeamMove{1, 1}));
  EXPECT_FALSE(beams.done());
  EXPECT_TRUE(step(beams, {{-4, -3, -9, -9}, {-1, -9, -9, -9}}).empty());
  EXPECT_TRUE(beams.done());
  const auto outputs = beams.outputs();
  ASSERT_THAT(outputs, SizeIs(2));
  EXPECT_THAT(outputs[0].ids, ElementsAre(2, 1, 0));  // -5
  EXPECT_EQ(outputs[0].cumulative_logprob, -5);
  EXPECT_THAT(outputs[1].ids, ElementsAre(2, 0, 1));  // -6
}

TEST(BeamSearch, BreaksTiesByTheBeamAndThenByTheToken) {
  const Request request = request_for({.width = 3}, 3, {});
  BeamScratch scratch(4);
  BeamSearch beams(request, scratch, 9);
  EXPECT_THAT(step(beams, {{-2, -1, -2, -2}}), ElementsAre(BeamMove{0, 1}, BeamMove{0, 0}, BeamMove{0, 2}));
  EXPECT_THAT(step(beams, {{-3, -3, -9, -9}, {-2, -9, -2, -9}, {-2, -9, -9, -9}}),
              ElementsAre(BeamMove{0, 0}, BeamMove{0, 1}, BeamMove{1, 0}));
}

TEST(BeamSearch, GoesOnBesideStopTokensThatAreAmongTheBest) {
  const Request request = request_for({.width = 2, .early_stopping = EarlyStopping::never}, 2, {0, 1});
  BeamScratch scratch(6);
  BeamSearch beams(request, scratch, 9);
  EXPECT_THAT(step(beams, {{-9, -9, -1, -1, -9, -9}}), ElementsAre(BeamMove{0, 2}, BeamMove{0, 3}));
  // Both stop tokens of both beams lie in front of what goes on.
  EXPECT_THAT(step(beams, {{-3, -4, -9, -6, -7, -9}, {-3.5f, -4.5f, -9, -9, -9, -9}}),
              ElementsAre(BeamMove{0, 3}, BeamMove{0, 4}));
  // Of the four, two are hypotheses.
  const auto outputs = beams.outputs();
  ASSERT_THAT(outputs, SizeIs(2));
  EXPECT_THAT(outputs[0].ids, ElementsAre(2));
  EXPECT_EQ(outputs[0].cumulative_logprob, -4);
  EXPECT_THAT(outputs[1].ids, ElementsAre(3));
  EXPECT_EQ(outputs[1].cumulative_logprob, -4.5);
}

// The two best beams weigh -7 and -8; hypotheses of -2 and -2.25 a token are there.
TEST(BeamSearch, IsDoneWhenNothingBetterIsUnderWay) {
  const auto goes_on = [](Beams options) {
    options.width = 2;
    const Request request = request_for(options, 2, {0, 1});
    BeamScratch scratch(6);
    BeamSearch beams(request, scratch, 9);
    step(beams, {{-9, -9, -1, -1, -9, -9}});
    step(beams, {{-3, -4, -9, -6, -7, -9}, {-3.5f, -4.5f, -9, -9, -9, -9}});
    return !beams.done();
  };
  EXPECT_FALSE(goes_on({.early_stopping = EarlyStopping::no}));    // -7 / 2
  EXPECT_TRUE(goes_on({.early_stopping = EarlyStopping::never}));  // -7 / 9
  EXPECT_FALSE(goes_on({.early_stopping = EarlyStopping::yes}));
  EXPECT_FALSE(goes_on({.length_penalty = 0, .early_stopping = EarlyStopping::never}));
  EXPECT_FALSE(goes_on({.length_penalty = -1, .early_stopping = EarlyStopping::never}));
}

TEST(BeamSearch, EndsAtTheModelsLastPosition) {
  Request request = request_for({.width = 2}, 1, {});
  request.max_tokens = 10;
  EXPECT_EQ(search(request, ToyModel{}, 3).front().finish, Finish::max_position);
  EXPECT_EQ(search(request, ToyModel{}, 10).front().finish, Finish::max_new_tokens);
}

TEST(BeamSearch, KeepsToWhatTheRequestForbids) {
  Request request = request_for({.width = 3}, 3, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  request.sampling.no_repeat_ngram_size = 1;
  request.sampling.min_tokens = 6;
  request.sampling.bad_words = {{20}};
  for (uint64_t seed = 1; seed < 20; ++seed) {
    const auto outputs = search(request, {.seed = seed}, 20);
    ASSERT_THAT(outputs, SizeIs(3));
    for (const Output& output : outputs) {
      EXPECT_GE(output.ids.size(), 6u);
      Ids sorted = output.ids;
      std::sort(sorted.begin(), sorted.end());
      EXPECT_EQ(std::unique(sorted.begin(), sorted.end()), sorted.end());
      EXPECT_EQ(std::count(sorted.begin(), sorted.end(), 20), 0);
    }
  }
}

TEST(BeamSearch, RanksByChangedLogprobsAndTellsTheModels) {
  Request request = request_for({.width = 1}, 1, {});
  request.sampling.logit_bias = {{3, 6}};
  BeamScratch scratch(4);
  BeamSearch beams(request, scratch, 1);
  step(beams, {{-1, -4, -2, -5}});
  ASSERT_THAT(beams.outputs(), SizeIs(1));
  EXPECT_THAT(beams.outputs()[0].ids, ElementsAre(3));
  EXPECT_EQ(beams.outputs()[0].cumulative_logprob, -5);
}

TEST(BeamSearch, HasFewerOutputsWhereFewerAreAllowed) {
  Request request = request_for({.width = 3}, 3, {});
  request.sampling.allowed_token_ids = Ids{4, 5};
  request.sampling.no_repeat_ngram_size = 1;
  EXPECT_THAT(search(request, ToyModel{}, 2), SizeIs(2));  // 4 5 and 5 4
  EXPECT_TRUE(search(request, ToyModel{}, 3).empty());     // nothing is allowed behind them
  request.sampling.allowed_token_ids = Ids{};
  EXPECT_TRUE(search(request, ToyModel{}, 2).empty());
}

TEST(BeamSearch, TellsLogprobsOfEachToken) {
  Request request = request_for({.width = 4}, 2, {0, 1, 2});
  request.logprobs = 2;
  const ToyModel model;
  for (const Output& output : search(request, model, 6)) {
    ASSERT_EQ(output.logprobs.size(), output.ids.size());
    Ids prefix = request.prompt;
    double sum = 0;
    for (size_t i = 0; i < output.ids.size(); ++i) {
      const std::vector<float> row = model.logits(prefix);
      const auto expected = logprobs_of(row, normaliser_of(row), output.ids[i], 2);
      EXPECT_EQ(output.logprobs[i].token.id, output.ids[i]);
      EXPECT_EQ(output.logprobs[i].token.logprob, expected.token.logprob);
      ASSERT_THAT(output.logprobs[i].top, SizeIs(2));
      EXPECT_EQ(output.logprobs[i].top[1].id, expected.top[1].id);
      sum += expected.token.logprob;
      prefix.push_back(output.ids[i]);
    }
    // That of a stop token counts, too.
    EXPECT_EQ(output.cumulative_logprob < sum, output.finish == Finish::stop);
    EXPECT_EQ(output.cumulative_logprob == sum, output.finish == Finish::max_new_tokens);
  }
}

TEST(BeamSearch, EndsABeamAtAStopString) {
  const Tokenizer tokenizer = load(words({"a", "b", "c", "d"}));
  Request request = request_for({.width = 2}, 2, {});
  request.prompt = {3};
  request.stop = {"b c"};
  BeamScratch scratch(4);
  BeamSearch beams(request, scratch, 3, ContinuationText(tokenizer, request));
  EXPECT_THAT(step(beams, {{-1, -2, -9, -9}}), ElementsAre(BeamMove{0, 0}, BeamMove{0, 1}));
  EXPECT_THAT(step(beams, {{-9, -4, -9, -9}, {-5, -9, -1, -9}}), ElementsAre(BeamMove{0, 1}, BeamMove{1, 0}));
  step(beams, {{-9, -9, -1, -9}, {-9, -9, -9, -9}});
  const auto outputs = beams.outputs();
  ASSERT_THAT(outputs, SizeIs(2));
  EXPECT_THAT(outputs[0].ids, ElementsAre(1, 2));  // -3 of two
  EXPECT_EQ(outputs[0].text, " ");
  EXPECT_EQ(outputs[0].finish, Finish::stop);
  EXPECT_THAT(outputs[1].ids, ElementsAre(0, 1, 2));  // -6 of three
  EXPECT_EQ(outputs[1].text, " a ");
}

TEST(BeamSearch, NamesLogitsThatAreNotFinite) {
  const Request request = request_for({.width = 2}, 1, {});
  BeamScratch scratch(2);
  BeamSearch beams(request, scratch, 3);
  EXPECT_THROW(step(beams, {{0, std::numeric_limits<float>::quiet_NaN()}}), UserError);
}

}  // namespace
}  // namespace tessera
