// The engine against everything computed anew: the same bits, whatever shares a batch and however it is scheduled.
#include "infer/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/batches.h"

namespace tessera {
namespace {

using namespace test;

/// Two groups with prefixes that end within a block of 128 positions, at its end and behind it; a prompt that others
/// begin with, one twice, and one that shares nothing.
std::vector<Request> shared_batch(int64_t max_tokens) {
  std::vector<Request> requests;
  const auto header = ids_of(127, 3), second = ids_of(130, 40);
  for (int64_t i = 0; i < 4; ++i) requests.push_back(greedy(joined(header, ids_of(1 + 5 * i, 11 * i)), max_tokens));
  requests.push_back(greedy(header, max_tokens));
  requests.push_back(greedy(joined(header, ids_of(1, 0)), max_tokens));
  const auto below = joined(second, ids_of(126, 9));  // ends at 256
  for (int64_t i = 0; i < 3; ++i) requests.push_back(greedy(joined(below, ids_of(3 + i, 20 + i)), max_tokens));
  for (int64_t i = 0; i < 2; ++i) requests.push_back(greedy(joined(second, ids_of(2, 60 + i)), max_tokens));
  requests.push_back(requests[2]);
  requests.push_back(greedy(ids_of(5, 66), max_tokens));
  return requests;
}

TEST(Engine, HasTheBitsOfEverythingComputedAnewHoweverItIsScheduled) {
  const auto model = load_model(golden("gqa"), 1024);
  const std::vector<Request> requests = shared_batch(9);
  const std::vector<Output> want = alone(*model, requests);
  for (const PrefixMode mode :
       {PrefixMode::tree, PrefixMode::level1_exact, PrefixMode::level1_greedy, PrefixMode::sort, PrefixMode::off})
    for (const int64_t page : {8, 128})
      for (const int64_t step : {17, 256})
        for (const int threads : {1, 3}) {
          const std::string where =
              fmt::format("mode {}, pages of {}, steps of {}, {} threads", static_cast<int>(mode), page, step, threads);
          Batch batch;
          batch.options = {.prefix = mode, .page_tokens = page, .step_tokens = step};
          batch.threads = threads;
          const Answered got = answer(*model, requests, batch);
          expect_outputs(got, want, where);
          EXPECT_EQ(got.counts.schedule.recomputed, 0) << where;
        }
}

TEST(Engine, ComputesATokenThatPromptsShareOnce) {
  const auto model = load_model(golden("gqa"), 1024);
  const std::vector<Request> requests = shared_batch(3);
  const BatchPlan plan = plan_batch(requests, PrefixMode::tree, 16, 1024, 1);
  EXPECT_EQ(answer(*model, requests).counts.schedule.computed, plan.tree.tokens());
  int64_t logical = 0, cached = 0;
  for (size_t i = 0; i < requests.size(); ++i) logical += std::ssize(requests[i].prompt), cached += plan.cached[i];
  EXPECT_EQ(logical - cached, plan.tree.tokens());
  Batch off;
  off.options.prefix = PrefixMode::off;
  EXPECT_EQ(answer(*model, requests, off).counts.schedule.computed, logical);
}

TEST(Engine, HasTheSameAnswersWhenPagesRunOut) {
  const auto model = load_model(golden("gqa"), 1024);
  const std::vector<Request> requests = shared_batch(40);
  const std::vector<Output> want = alone(*model, requests);
  const int64_t least = plan_batch(requests, PrefixMode::tree, 8, 1024, 1).most_bundles;
  int64_t preemptions = 0;
  for (const int64_t more : {0, 2, 7}) {
    Batch batch;
    batch.options = {.page_tokens = 8, .step_tokens = 64};
    batch.bundles = least + more;
    const Answered got = answer(*model, requests, batch);
    expect_outputs(got, want, fmt::format("{} bundles more", more));
    EXPECT_LE(got.counts.pages_peak, got.counts.pages_total);
    preemptions += got.counts.schedule.preemptions;
  }
  EXPECT_GT(preemptions, 0);
}

TEST(Engine, LetsNobodyWaitForPagesThatWerePlanned) {
  const auto model = load_model(golden("gqa"), 1024);
  std::vector<Request> requests;  // the prefix takes most of the pages, so that the high water is above it
  for (int64_t i = 0; i < 16; ++i) requests.push_back(greedy(joined(ids_of(900, 3), ids_of(2, i)), 12));
  Batch batch;
  const Answered planned = answer(*model, requests, batch);
  batch.bundles = 10'000;
  EXPECT_EQ(planned.counts.schedule.steps, answer(*model, requests, batch).counts.schedule.steps);
  EXPECT_LT(planned.counts.pages_total, planned.counts.pages_peak * 11 / 10);
}

TEST(Engine, GoesOnAcrossSpansOf1024Keys) {
  const auto model = load_model(golden("gqa"), 1200);
  std::vector<Request> requests;
  const auto header = ids_of(1019, 5);
  for (int64_t i = 0; i < 3; ++i) requests.push_back(greedy(joined(header, ids_of(2 + 3 * i, 30 + i)), 9));
  const std::vector<Output> want = alone(*model, requests);
  for (const int threads : {1, 2}) {
    Batch batch;
    batch.threads = threads;
    expect_outputs(answer(*model, requests, batch), want, "long");
  }
}

TEST(Engine, DrawsEachSampleFromItsOwnSeedAlone) {
  const auto model = load_model(golden("gqa"), 256);
  std::vector<Request> requests;
  for (int64_t i = 0; i < 3; ++i) {
    Request request = greedy(joined(ids_of(20, 4), ids_of(2, i)), 8);
    request.sampling.temperature = 1.5;
    request.sampling.top_k = 40;
    request.n = request.best_of = 4;
    request.seed = 100 + static_cast<uint64_t>(i);
    requests.push_back(request);
  }
  const Answered together = answer(*model, requests);
  Batch narrow;
  narrow.options = {.step_tokens = 16, .max_sequences = 3};
  const Answered few = answer(*model, requests, narrow);
  std::set<std::vector<int32_t>> different;
  for (size_t i = 0; i < requests.size(); ++i) {
    const Answered by_itself = answer(*model, {requests[i]});
    ASSERT_EQ(together.results[i].outputs.size(), 4);
    for (size_t j = 0; j < 4; ++j) {
      const Output want = answer_alone(*model, requests[i], static_cast<int64_t>(j));
      expect_same(together.results[i].outputs[j], want, "together");
      expect_same(by_itself.results[0].outputs[j], want, "alone");
      expect_same(few.results[i].outputs[j], want, "few at once");
      different.insert(want.ids);
    }
  }
  EXPECT_GT(different.size(), 8);
  // Four samples of a prompt compute it once, and the row that they begin from too.
  EXPECT_EQ(together.counts.schedule.computed, 20 + 3 * 2);
  EXPECT_EQ(few.counts.schedule.computed, 20 + 3 * 2);
  EXPECT_EQ(few.counts.schedule.recomputed, 0);
}

TEST(Engine, AnswersTheSamplesWithTheLargestMeanLogprob) {
  const auto model = load_model(golden("gqa"), 256);
  Request request = greedy(ids_of(12, 8), 6);
  request.sampling.temperature = 2;
  request.n = 2, request.best_of = 6;
  const Answered got = answer(*model, {request});
  std::vector<Output> samples;
  for (int64_t j = 0; j < 6; ++j) samples.push_back(answer_alone(*model, request, j));
  std::stable_sort(samples.begin(), samples.end(), [](const Output& a, const Output& b) {
    return a.cumulative_logprob / static_cast<double>(a.ids.size()) >
           b.cumulative_logprob / static_cast<double>(b.ids.size());
  });
  ASSERT_EQ(got.results[0].outputs.size(), 2);
  for (size_t j = 0; j < 2; ++j) expect_same(got.results[0].outputs[j], samples[j], "best");
}

TEST(Engine, EndsAtStopTokensLengthsAndTheLastPosition) {
  const auto model = load_model(golden("gqa"), 24);
  std::vector<Request> requests = {greedy(ids_of(8, 1), 30), greedy(ids_of(10, 2), 5), greedy(ids_of(24, 3), 30)};
  const Output first = answer_alone(*model, requests[0]);
  requests.push_back(requests[0]);
  requests.back().stop_ids = {first.ids[4]};
  const Answered got = answer(*model, requests);
  EXPECT_EQ(got.results[0].outputs[0].finish, Finish::max_position);
  EXPECT_EQ(got.results[0].outputs[0].ids.size(), 24 - 8 + 1);  // the last new token is read by nobody
  EXPECT_EQ(got.results[1].outputs[0].finish, Finish::max_new_tokens);
  EXPECT_EQ(got.results[2].outputs[0].ids.size(), 1);
  EXPECT_EQ(got.results[3].outputs[0].finish, Finish::stop);
  for (size_t i = 0; i < requests.size(); ++i)
    expect_same(got.results[i].outputs[0], answer_alone(*model, requests[i]), std::to_string(i));
}

TEST(Engine, ScoresPromptsWithTheBitsOfTraining) {
  const auto model = load_model(golden("gqa"), 512);
  std::vector<Request> requests;
  const auto question = ids_of(140, 6);
  for (int64_t i = 0; i < 4; ++i) {  // choices of one question
    Request request{.prompt = joined(question, ids_of(1 + i, 17 * i)), .max_tokens = 0};
    request.score_from = std::ssize(question);
    requests.push_back(request);
  }
  Request whole{.prompt = ids_of(200, 30), .max_tokens = 0};
  requests.push_back(whole);
  Request told = whole;
  told.max_tokens = 4, told.prompt_logprobs = 3, told.logprobs = 0;
  requests.push_back(told);
  for (const int64_t step : {256, 33}) {
    Batch batch;
    batch.options.step_tokens = step;
    const Answered got = answer(*model, requests, batch);
    EXPECT_EQ(got.counts.schedule.computed, 140 + 0 + 1 + 2 + 3 + 200) << step;
    for (size_t i = 0; i < 5; ++i) {
      const Request& request = requests[i];
      const std::vector<float> nll = forward_nll(*model, request.prompt);
      const Tensor logits = forward_logits(*model, request.prompt);
      const int64_t from = request.score_from.value_or(1);
      ASSERT_TRUE(got.results[i].scores) << i;
      const Scores& scores = *got.results[i].scores;
      ASSERT_EQ(std::ssize(scores.ids), std::ssize(request.prompt) - from);
      double sum = 0;
      for (int64_t t = from; t < std::ssize(request.prompt); ++t) {
        const auto at = static_cast<size_t>(t - from);
        EXPECT_EQ(scores.ids[at], request.prompt[static_cast<size_t>(t)]);
        EXPECT_EQ(scores.logprobs[at], -nll[static_cast<size_t>(t) - 1]) << i << " " << t;
        const auto row = logits.view().slice_rows(t - 1, t).as<float>();
        const auto best = std::max_element(row.begin(), row.end()) - row.begin();
        EXPECT_EQ(scores.greedy[at] != 0, best == scores.ids[at]);
        sum += scores.logprobs[at];
      }
      EXPECT_EQ(scores.sum, sum);
      ASSERT_EQ(got.results[i].outputs.size(), 1);
      EXPECT_TRUE(got.results[i].outputs[0].ids.empty());
    }
    const RequestResult& both = got.results[5];
    ASSERT_EQ(both.prompt_logprobs.size(), 199);
    const std::vector<float> nll = forward_nll(*model, told.prompt);
    for (size_t t = 0; t < 199; ++t) {
      EXPECT_EQ(both.prompt_logprobs[t].token.logprob, -nll[t]);
      EXPECT_EQ(both.prompt_logprobs[t].top.size(), 3);
      EXPECT_GE(both.prompt_logprobs[t].top[0].logprob, both.prompt_logprobs[t].top[1].logprob);
    }
    expect_same(both.outputs[0], answer_alone(*model, told), "told");
  }
}

// A node of 300 tokens, its children's blocks, and tails: what is read once is counted once.
TEST(Engine, ReadsSharedKeysOnceAStep) {
  const auto model = load_model(golden("gqa"), 1024);
  const ModelConfig& c = model->config();
  const int64_t kappa = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * 4;
  constexpr int64_t kPrefix = 300, kRequests = 6, kOwn = 3;
  std::vector<Request> requests;
  for (int64_t i = 0; i < kRequests; ++i)
    requests.push_back(greedy(joined(ids_of(kPrefix, 3), ids_of(kOwn, 20 + i)), 2, -1));
  const Crossover jointly = Crossover::always();
  for (const bool deterministic : {true, false}) {
    Batch batch;
    batch.options = {.deterministic = deterministic, .step_tokens = 1024, .crossover = &jointly};
    const EngineCounts once = answer(*model, requests, batch).counts;
    for (Request& request : requests) request.max_tokens = 3;
    const EngineCounts more = answer(*model, requests, batch).counts;
    for (Request& request : requests) request.max_tokens = 2;
    // The step that is added has a row a request, with one new token fed before it.
    const int64_t keys = kPrefix + kOwn + 2;
    const int64_t shared = deterministic ? kPrefix / 128 * 128 : kPrefix + 0;
    EXPECT_EQ(more.kv_bytes_read - once.kv_bytes_read, kappa * (shared + kRequests * (keys - shared))) << deterministic;
  }
}

TEST(Engine, FailsARequestWithoutAnAllowedTokenAndGoesOnWithTheOthers) {
  const auto model = load_model(golden("gqa"), 256);
  std::vector<Request> requests = {greedy(ids_of(9, 1), 6), greedy(ids_of(9, 2), 6), greedy(ids_of(9, 3), 6)};
  requests[1].sampling.allowed_token_ids = std::vector<int32_t>{5};
  requests[1].sampling.no_repeat_ngram_size = 1;  // the token is allowed once
  const Answered got = answer(*model, requests);
  ASSERT_TRUE(got.results[1].error);
  EXPECT_EQ(got.results[1].error->message, "no token is allowed");
  EXPECT_TRUE(got.results[1].outputs[0].ids.empty());  // how far it came hangs on the schedule
  EXPECT_EQ(got.results[1].outputs[0].finish, Finish::failed);
  EXPECT_EQ(got.counts.failed, 1);
  for (const size_t i : {size_t{0}, size_t{2}})
    expect_same(got.results[i].outputs[0], answer_alone(*model, requests[i]), "others");
}

}  // namespace
}  // namespace tessera
