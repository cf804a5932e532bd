// Greedy answers of a whole batch beside those of transformers, which continued each prompt by itself: tests/golden has
// 50 prompts for each family of models, some of which share prefixes.

#include <gtest/gtest.h>

#include "infer/batches.h"

namespace tessera {
namespace {

using namespace test;

/// Two best logits that are closer than this may change places by rounding; what follows is another text then.
constexpr float kTie = 1e-3f;
/// Logits of the golden models are below 10, and two programs' agree to 1e-5 of that (tests/golden/README.md).
constexpr float kRounding = 1e-4f;

struct Golden {
  explicit Golden(const std::string& name)
      : file(SafetensorsReader::open(golden(name) / "greedy.safetensors")),
        tokens(file.at("tokens")),
        margins(file.at("margins")) {
    const uint8_t* next = file.at("prompts").as<uint8_t>().data();
    for (const int32_t length : file.at("prompt_lengths").as<int32_t>()) {
      requests.push_back(greedy({next, next + length}, tokens.shape[1]));
      next += length;
    }
  }
  SafetensorsReader file;
  std::vector<Request> requests;
  ConstView tokens, margins;  // [requests, new tokens] u8 and f32: the text, and how far apart the two best logits were
};

/// @return tokens that were compared: those before the first tie.
int64_t expect_equal_up_to_a_tie(const Output& got, const uint8_t* tokens, const float* margins) {
  for (size_t t = 0; t < got.ids.size(); ++t) {
    if (margins[t] < kTie) return static_cast<int64_t>(t);
    const auto& best = got.logprobs[t].top;
    EXPECT_EQ(got.ids[t], tokens[t]) << "token " << t;
    EXPECT_NEAR(best[0].logprob - best[1].logprob, margins[t], kRounding) << "token " << t;
    if (testing::Test::HasFailure()) break;
  }
  return std::ssize(got.ids);
}

class GreedyGolden : public testing::TestWithParam<const char*> {};

TEST_P(GreedyGolden, AnswersAreThoseOfTransformers) {
  const Golden want(GetParam());
  ASSERT_EQ(want.requests.size(), 50u);
  const auto model = load_model(golden(GetParam()), 512);
  const Answered got = answer(*model, want.requests);
  int64_t compared = 0, prompts = 0;
  for (size_t r = 0; r < want.requests.size(); ++r) {
    SCOPED_TRACE(fmt::format("request {}", r));
    const auto row = static_cast<int64_t>(r);
    ASSERT_EQ(got.results[r].outputs.size(), 1u);
    ASSERT_EQ(std::ssize(got.results[r].outputs[0].ids), want.tokens.shape[1]);
    compared += expect_equal_up_to_a_tie(got.results[r].outputs[0], want.tokens.row<uint8_t>(row),
                                         want.margins.row<float>(row));
    prompts += std::ssize(want.requests[r].prompt);
    if (HasFailure()) return;
  }
  EXPECT_GT(compared, want.tokens.shape.count() * 8 / 10);  // few texts meet a tie
  EXPECT_LT(got.counts.schedule.computed, prompts / 2);     // what prompts share is computed once
}

INSTANTIATE_TEST_SUITE_P(Families, GreedyGolden,
                         testing::Values("gqa", "llama3_rope", "mistral", "qwen2", "qwen2_windows", "qwen3",
                                         "qwen3_windows", "smollm3", "smollm3_list"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace tessera
