// Search by beams in the engine against the same search over everything computed anew: the same hypotheses, with the
// same bits, whatever shares a batch and however it is scheduled.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/functions/functions.h"
#include "core/json.h"
#include "infer/batches.h"
#include "infer/beams.h"
#include "io/files.h"
#include "kernels/compute.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

using namespace test;

Request searched(std::vector<int32_t> prompt, int64_t max_tokens, Beams beams, int64_t n) {
  Request request = greedy(std::move(prompt), max_tokens, 1);
  request.beams = beams;
  request.n = request.best_of = n;
  return request;
}

/// Every beam is fed whole for each token, by the forward pass of training.
std::vector<Output> search_alone(Model& model, const Request& request) {
  const int64_t room = model.decoder().max_position() - std::ssize(request.prompt) + 1;
  BeamScratch scratch(model.config().vocab_size);
  BeamSearch search(request, scratch, std::min(request.max_tokens, room));
  std::vector<std::vector<int32_t>> texts = {request.prompt};
  while (!search.done()) {
    std::vector<Tensor> logits;
    std::vector<BeamRow> rows;
    for (const auto& text : texts) {
      logits.push_back(forward_logits(model, text));
      const TensorView last = logits.back().view().slice_rows(std::ssize(text) - 1, std::ssize(text));
      rows.push_back({last.as<float>(), normalise_rows(roomy_engine().ctx, last)[0]});
    }
    std::vector<std::vector<int32_t>> next;
    for (const BeamMove& move : search.advance(rows))
      next.push_back(joined(texts.at(static_cast<size_t>(move.parent)), {move.token}));
    texts = std::move(next);
  }
  return search.outputs();
}

std::vector<std::vector<Output>> all_alone(Model& model, const std::vector<Request>& requests) {
  std::vector<std::vector<Output>> all;
  for (const Request& request : requests) {
    if (request.beams.width > 1) {
      all.push_back(search_alone(model, request));
      continue;
    }
    all.emplace_back();
    for (int64_t j = 0; j < request.n; ++j) all.back().push_back(answer_alone(model, request, j));
  }
  return all;
}

void expect_all(const Answered& got, const std::vector<std::vector<Output>>& want, const std::string& where) {
  for (size_t i = 0; i < want.size(); ++i) {
    const RequestResult& result = got.results.at(i);
    ASSERT_FALSE(result.error) << where << ": " << result.error->message;
    ASSERT_EQ(result.outputs.size(), want[i].size()) << where;
    for (size_t j = 0; j < want[i].size(); ++j)
      expect_same(result.outputs[j], want[i][j], fmt::format("{}, request {}, output {}", where, i, j));
  }
}

/// Searches of all kinds behind prompts that begin alike, beside continuations that are not searched.
std::vector<Request> mixed_batch(int64_t tokens) {
  const auto header = ids_of(30, 3);
  std::vector<Request> requests;
  requests.push_back(searched(joined(header, ids_of(4, 1)), tokens, {.width = 4}, 2));
  requests.push_back(greedy(joined(header, ids_of(4, 1)), tokens));
  requests.push_back(searched(joined(header, ids_of(7, 9)), tokens, {.width = 2, .length_penalty = 0}, 2));
  requests.push_back(searched(header, tokens, {.width = 7, .early_stopping = EarlyStopping::yes}, 7));
  requests.push_back(searched(ids_of(9, 50), tokens, {.width = 3, .early_stopping = EarlyStopping::never}, 1));
  requests.push_back(greedy(ids_of(5, 66), tokens));
  requests.back().sampling.temperature = 1.2;
  requests.back().n = requests.back().best_of = 3;
  requests.push_back(searched(ids_of(9, 50), 1, {.width = 5}, 5));
  for (size_t i = 2; i < requests.size(); ++i) requests[i].stop_ids = {5, 17, 40};
  requests[0].sampling.repetition_penalty = 1.3;
  requests[3].sampling.min_tokens = 3;
  return requests;
}

TEST(BeamEngine, FindsWhatASearchOverEverythingComputedAnewFinds) {
  const auto model = load_model(golden("gqa"), 256);
  const std::vector<Request> requests = mixed_batch(22);
  const auto want = all_alone(*model, requests);
  for (const PrefixMode mode : {PrefixMode::tree, PrefixMode::off})
    for (const int64_t page : {8, 16})
      for (const int64_t step : {16, 256})
        for (const int threads : {1, 3}) {
          Batch batch;
          batch.options = {.prefix = mode, .page_tokens = page, .step_tokens = step};
          batch.threads = threads;
          const Answered got = answer(*model, requests, batch);
          expect_all(got, want, fmt::format("pages of {}, steps of {}, {} threads", page, step, threads));
          EXPECT_EQ(got.counts.schedule.recomputed, 0);
        }
}

TEST(BeamEngine, FindsTheSameWhenPagesRunOut) {
  const auto model = load_model(golden("gqa"), 256);
  const std::vector<Request> requests = mixed_batch(22);
  const auto want = all_alone(*model, requests);
  int64_t preemptions = 0;
  for (const int64_t page : {8, 16})
    for (const int64_t more : {0, 1, 5}) {
      Batch batch;
      batch.options = {.page_tokens = page, .step_tokens = 32, .reserve = 0};
      batch.bundles = plan_of(*model, requests, batch).most_bundles + more;
      const Answered got = answer(*model, requests, batch);
      expect_all(got, want, fmt::format("pages of {}, {} bundles more", page, more));
      EXPECT_LE(got.counts.pages_peak, got.counts.pages_total);
      preemptions += got.counts.schedule.preemptions;
    }
  EXPECT_GT(preemptions, 0);
}

std::vector<int32_t> ids_in(const Json& list) {
  std::vector<int32_t> ids;
  for (const Json& id : list.items()) ids.push_back(static_cast<int32_t>(id.as_integer()));
  return ids;
}

TEST(BeamEngine, FindsWhatTransformersFinds) {
  const auto model = load_model(golden("gqa"), 256);
  const Json file = Json::parse(read_text_file(golden("gqa") / "beams.json"), "beams.json");
  const auto& cases = file.at("cases").items();
  std::vector<Request> requests;
  for (const Json& one : cases) {
    const Json& early = one.at("early_stopping");
    const Beams beams{.width = one.at("num_beams").as_integer(),
                      .length_penalty = one.at("length_penalty").as_number(),
                      .early_stopping = !early.is_bool()  ? EarlyStopping::never
                                        : early.as_bool() ? EarlyStopping::yes
                                                          : EarlyStopping::no};
    requests.push_back(searched(ids_in(one.at("prompt")), one.at("max_tokens").as_integer(), beams, beams.width));
    requests.back().stop_ids = ids_in(one.at("stop_ids"));
  }
  Batch batch;
  batch.options.page_tokens = 8;
  const Answered got = answer(*model, requests, batch);
  int64_t stopped = 0, all = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto& want = cases[i].at("outputs").items();
    ASSERT_EQ(got.results[i].outputs.size(), want.size()) << i;
    for (size_t j = 0; j < want.size(); ++j, ++all) {
      const Output& output = got.results[i].outputs[j];
      EXPECT_EQ(output.ids, ids_in(want[j].at("ids"))) << i << " " << j;
      const bool stops = want[j].at("stops").as_bool();
      EXPECT_EQ(output.finish, stops ? Finish::stop : Finish::max_new_tokens);
      const auto tokens = static_cast<double>(std::ssize(output.ids) + stops);
      const double score = want[j].at("score").as_number();
      // Two sums of up to 20 logprobs in f32.
      EXPECT_NEAR(output.cumulative_logprob / functions::pow(tokens, requests[i].beams.length_penalty), score,
                  1e-5 * std::abs(score));
      stopped += stops;
    }
  }
  EXPECT_GT(stopped, all / 4);
  EXPECT_LT(stopped, all);
}

// A page that beams part in is copied with all that belongs to it.
TEST(BeamEngine, FindsTheSameInEveryTypeOfPage) {
  const auto model = load_model(golden("gqa"), 256);
  const std::vector<Request> requests = mixed_batch(14);
  for (const DType type : {DType::i8, DType::bf16}) {
    Batch batch;
    batch.options = {.page_tokens = 128, .kv_dtype = type};
    const Answered wide = answer(*model, requests, batch);
    std::vector<std::vector<Output>> want;
    for (const RequestResult& result : wide.results) want.push_back(result.outputs);
    batch.options.page_tokens = 8;
    batch.options.reserve = 0;
    batch.bundles = plan_of(*model, requests, batch).most_bundles;
    const Answered narrow = answer(*model, requests, batch);
    EXPECT_GT(narrow.counts.schedule.recomputed, 0);  // of beams by themselves, without a copy
    expect_all(narrow, want, std::string(name_of(type)));
  }
}

TEST(BeamEngine, FindsTheSameOnADeviceWhoseMemoryTheHostCannotRead) {
  const std::vector<Request> requests = {searched({1, 2, 3}, 12, {.width = 4}, 4),
                                         searched({4, 5}, 12, {.width = 3}, 1)};
  std::vector<std::vector<Output>> found[2];
  for (const bool is_far : {false, true}) {
    const TemporaryFolder folder;
    Model::Settings settings = tiny_settings(folder.path());
    settings.device = device_of(is_far ? "far" : "cpu");
    Model model(settings);
    Batch batch;
    batch.options.page_tokens = 8;
    const BatchPlan plan = plan_of(model, requests, batch);
    const EngineMemory memory = memory_of(model, plan, batch);
    const Compute compute({.device = settings.device}, memory.bytes());
    for (const RequestResult& result : answer_in(compute, model, requests, plan, batch.options, memory.bundles).results)
      found[is_far].push_back(result.outputs);
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(found[1][i].size(), found[0][i].size());
    for (size_t j = 0; j < found[0][i].size(); ++j) expect_same(found[1][i][j], found[0][i][j], "far");
  }
}

TEST(BeamEngine, TakesAtMostAPageForEachBeamInAStep) {
  const auto model = load_model(golden("gqa"), 256);
  const std::vector<Request> requests = {searched(ids_of(16, 3), 40, {.width = 6}, 6)};
  Batch batch;
  batch.options.page_tokens = 8;
  const BatchPlan plan = plan_of(*model, requests, batch);
  const EngineMemory memory = memory_of(*model, plan, batch);
  EXPECT_EQ(memory.bundles, 34);  // 2 + 6 · 5, as many as beams that share nothing take, below the high water
  const test::Engine engine("cpu", memory.bytes(), 2);
  const int64_t bundle = model->config().num_hidden_layers * model->config().num_key_value_heads;
  int64_t held = 0;
  const EngineHooks hooks{.stepped = [&](const EngineCounts& counts) {
    EXPECT_LE(counts.pages_in_use - held, 6 * bundle);
    held = counts.pages_in_use;
  }};
  const EngineCounts counts =
      run_engine(engine.ctx, *model, requests, plan, batch.options, memory.bundles, {}, nullptr, hooks);
  // Beams of one search have most of their tokens in common.
  EXPECT_LT(counts.pages_peak, (2 + 6 * 5) * bundle);
}

TEST(BeamEngine, HasRoomForTheBeamsOfASearchInAnyPass) {
  const auto model = load_model(golden("gqa"), 256);
  const std::vector<Request> requests = {searched(ids_of(20, 3), 8, {.width = 20}, 3), greedy(ids_of(9, 7), 8),
                                         searched(ids_of(12, 30), 8, {.width = 64}, 2)};
  const auto want = all_alone(*model, requests);
  Batch batch;
  batch.options = {.step_tokens = 16, .max_sequences = 1};
  expect_all(answer(*model, requests, batch), want, "narrow");
  expect_all(answer(*model, requests), want, "wide");
}

TEST(BeamEngine, EndsAtTheLastPosition) {
  const auto model = load_model(golden("gqa"), 24);
  const std::vector<Request> requests = {searched(ids_of(8, 1), 30, {.width = 3}, 3),
                                         searched(ids_of(24, 3), 30, {.width = 3}, 2)};
  const Answered got = answer(*model, requests);
  expect_all(got, all_alone(*model, requests), "short model");
  EXPECT_EQ(got.results[0].outputs[0].finish, Finish::max_position);
  EXPECT_EQ(got.results[0].outputs[0].ids.size(), 24 - 8 + 1);
  EXPECT_EQ(got.results[1].outputs[0].ids.size(), 1);
}

TEST(BeamEngine, FailsASearchThatIsAllowedNothingAndGoesOnWithTheOthers) {
  const auto model = load_model(golden("gqa"), 256);
  std::vector<Request> requests = {searched(ids_of(9, 1), 6, {.width = 3}, 2),
                                   searched(ids_of(9, 2), 6, {.width = 3}, 2),
                                   searched(ids_of(9, 3), 2, {.width = 3}, 3)};
  requests[1].sampling.allowed_token_ids = std::vector<int32_t>{60, 61};
  requests[1].sampling.no_repeat_ngram_size = 1;  // each token is allowed once
  requests[2].sampling = requests[1].sampling;
  for (const int32_t id : {60, 61})
    ASSERT_FALSE(std::count(requests[2].prompt.begin(), requests[2].prompt.end(), id)) << "the prompt has the token";
  const Answered got = answer(*model, requests);
  ASSERT_TRUE(got.results[1].error);
  EXPECT_EQ(got.results[1].error->message, "no token is allowed");
  ASSERT_EQ(got.results[1].outputs.size(), 2);
  EXPECT_TRUE(got.results[1].outputs[0].ids.empty());
  EXPECT_EQ(got.results[1].outputs[0].finish, Finish::failed);
  EXPECT_EQ(got.counts.failed, 1);
  // Two continuations are all that there are.
  EXPECT_EQ(got.results[2].outputs.size(), 2);
  const std::vector<Request> others = {requests[0], requests[2]};
  const auto want = all_alone(*model, others);
  expect_all({{got.results[0], got.results[2]}, {}}, want, "others");
}

}  // namespace
}  // namespace tessera
