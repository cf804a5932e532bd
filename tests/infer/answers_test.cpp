// What a batch is answered: continuations of models that are known, that break, and that are drawn.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/json.h"
#include "data/tokenizer.h"
#include "infer/batches.h"
#include "io/files.h"
#include "support/paths.h"

namespace tessera {
namespace {

using namespace test;

TEST(Answers, AStopTokenMakesRoomForTheNextRequest) {
  const auto model = load_model(golden("gqa"), 64);
  std::vector<Request> requests = {greedy(ids_of(3, 1), 20), greedy(ids_of(4, 20), 20), greedy(ids_of(5, 33), 20)};
  const int32_t stop = answer_alone(*model, requests[1]).ids[6];
  for (Request& request : requests) request.stop_ids = {stop};
  Batch batch;
  batch.options.max_sequences = 1;
  batch.bundles = plan_of(*model, requests, batch).most_bundles;
  const Answered got = answer(*model, requests, batch);
  EXPECT_EQ(got.results[1].outputs[0].finish, Finish::stop);
  EXPECT_LE(got.results[1].outputs[0].ids.size(), 6);
  expect_outputs(got, alone(*model, requests), "one at a time");
  EXPECT_EQ(got.counts.schedule.recomputed, 0);
}

/// Writes infinity over a row of the embedding in a folder's model.safetensors.
void damage_embedding(const std::filesystem::path& folder, int64_t row, int64_t width) {
  const std::filesystem::path file = folder / "model.safetensors";
  std::string bytes = read_file(file);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  const Json header = Json::parse(std::string_view(bytes).substr(8, length), "header");
  const int64_t begin = header.at("model.embed_tokens.weight").at("data_offsets").items()[0].as_integer();
  const std::vector<float> infinite(static_cast<size_t>(width), std::numeric_limits<float>::infinity());
  std::memcpy(&bytes[8 + length + static_cast<uint64_t>(begin + 4 * row * width)], infinite.data(),
              infinite.size() * 4);
  write_file(file, bytes);
}

TEST(Answers, ARequestThatBreaksLosesNoOther) {
  const auto whole = load_model(golden("gqa"), 64);
  std::vector<Request> requests = {greedy(ids_of(3, 1), 4), greedy(ids_of(5, 33), 4)};
  const std::vector<Output> want = {answer_alone(*whole, requests[0]), answer_alone(*whole, requests[1])};
  int32_t unused = 70;  // by what goes well
  const auto is_in = [&](const std::vector<int32_t>& ids) { return std::count(ids.begin(), ids.end(), unused) > 0; };
  while (is_in(requests[0].prompt) || is_in(requests[1].prompt) || is_in(want[0].ids) || is_in(want[1].ids)) --unused;

  const TemporaryFolder folder;
  std::filesystem::copy(golden("gqa"), folder.path(), std::filesystem::copy_options::recursive);
  damage_embedding(folder.path(), unused, 48);
  requests.push_back(greedy({3, unused, 5}, 4));                        // is broken from its second token on
  requests.push_back(greedy(joined(requests[0].prompt, {unused}), 4));  // behind a prompt that is not
  requests.push_back({.prompt = {3, 4, unused, 5}, .max_tokens = 0});   // and one that is only scored
  requests.push_back(requests[2]);                                      // one that is searched
  requests.back().beams.width = 3;
  const Answered got = answer(*load_model(folder.path(), 64), requests);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_FALSE(got.results[i].error);
    expect_same(got.results[i].outputs[0], want[i], std::to_string(i));
  }
  for (size_t i = 2; i < 6; ++i) {
    ASSERT_TRUE(got.results[i].error) << i;
    EXPECT_EQ(got.results[i].error->code, "not_finite");
    EXPECT_TRUE(got.results[i].outputs[0].ids.empty());
  }
  EXPECT_EQ(got.results[2].error->message, "the model's logits are not finite");
  EXPECT_EQ(got.results[2].outputs[0].finish, Finish::failed);
  EXPECT_THAT(got.results[4].error->message, testing::StartsWith("the model's logits in front of token "));
  EXPECT_EQ(got.counts.failed, 4);
}

TEST(Answers, SamplesFollowTheModelsDistribution) {
  const auto model = load_model(golden("gqa"), 64);
  constexpr int kDraws = 4000;
  Request request = greedy(ids_of(6, 1), 1, -1);
  request.sampling.temperature = 1.5;
  request.n = request.best_of = kDraws;
  request.seed = 3;
  const Answered drawn = answer(*model, {request});
  ASSERT_EQ(drawn.results[0].outputs.size(), kDraws);
  const Tensor logits = forward_logits(*model, request.prompt);
  std::vector<double> p;
  for (const float logit : logits.view().slice_rows(5, 6).as<float>()) p.push_back(std::exp(logit / 1.5));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  std::vector<double> counts(p.size(), 0);
  for (const Output& one : drawn.results[0].outputs) counts[static_cast<size_t>(one.ids.at(0))] += 1;
  double chi_square = 0;
  int cells = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double expected = kDraws * p[i] / sum;
    if (expected < 5) continue;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    ++cells;
  }
  EXPECT_GT(cells, 10);
  EXPECT_LT(chi_square, cells + 4 * std::sqrt(2.0 * cells));  // four standard deviations
}

class Stories : public testing::TestWithParam<int64_t> {};

TEST_P(Stories, ReproducesTheReferenceTokenForToken) {
  TESSERA_NEEDS_SHARED_DATA();
  const auto folder = shared_data() / "models" / "stories260K";
  const Json reference = Json::parse(read_text_file(folder / "reference_greedy.json"), "reference_greedy.json");
  const Tokenizer tokenizer = Tokenizer::load(folder);
  std::vector<Request> requests;
  std::vector<std::vector<int32_t>> expected;
  std::vector<std::string> texts;
  for (const Json& one : reference.at("cases").items()) {
    requests.push_back(greedy({*tokenizer.bos()}, 200, -1));
    requests.back().stop_ids = {*tokenizer.eos()};
    for (const int32_t id : tokenizer.encode(one.at("prompt").as_string())) requests.back().prompt.push_back(id);
    expected.emplace_back();
    for (const Json& id : one.at("greedy_ids").items())
      expected.back().push_back(static_cast<int32_t>(id.as_integer()));
    texts.push_back(one.at("text").as_string());
    std::vector<int32_t> prompt_ids;
    for (const Json& id : one.at("prompt_ids").items()) prompt_ids.push_back(static_cast<int32_t>(id.as_integer()));
    ASSERT_EQ(requests.back().prompt, prompt_ids);
  }
  ASSERT_EQ(requests.size(), 10u);

  const auto model = load_model(folder, 512);
  Batch batch;
  batch.options.max_sequences = GetParam();
  const Answered got = answer(*model, requests, batch);
  for (size_t i = 0; i < requests.size(); ++i) {
    std::vector<int32_t> ids = got.results[i].outputs[0].ids;
    ASSERT_GE(ids.size(), expected[i].size());  // the reference ends at 200 tokens, the prompt's included
    ids.resize(expected[i].size());
    EXPECT_EQ(ids, expected[i]) << texts[i];
    EXPECT_EQ(tokenizer.decode(joined(requests[i].prompt, ids), true), texts[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Batch, Stories, testing::Values(1, 3, 16),
                         [](const auto& info) { return "Of" + std::to_string(info.param); });

}  // namespace
}  // namespace tessera
