// A prompt has the same logits, bit for bit, in one pass, piece by piece and token by token over pages, with any
// instructions and number of threads: what a sum is made of does not hang on the rows that share its pass.

#include <gtest/gtest.h>

#include "core/random.h"
#include "infer/batches.h"
#include "support/cpu_targets.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

using namespace test;

// More than two blocks of 128 tokens, and no multiple of a tile, a panel of keys or a piece.
constexpr int64_t kTokens = 301;
// Plain loops are slow; they end within the second block.
constexpr int64_t kPlainTokens = 139;

std::vector<int32_t> prompt_of(const Model& model, int64_t tokens) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < tokens; ++i)
    ids.push_back(static_cast<int32_t>(RandomStream(3, 8).uniform(static_cast<uint64_t>(i)) *
                                       static_cast<double>(model.config().vocab_size)));
  return ids;
}

/// @param want  of at least as many tokens
void expect_bits(ConstView got, ConstView want) {
  for (int64_t t = 0; t < got.rows(); ++t)
    ASSERT_TRUE(same_bytes(got.slice_rows(t, t + 1), want.slice_rows(t, t + 1))) << "token " << t;
}

/// @param want  of the first target with one thread, in one pass
void expect_in_pieces(Model& model, int threads, int64_t tokens, ConstView want) {
  const Engine engine("cpu", int64_t{64} << 20, threads);
  const std::vector<int32_t> ids = prompt_of(model, tokens);
  expect_bits(forward_logits(engine.ctx, model, ids), want);
  int64_t page_tokens = 8;  // in turn 8 .. 64
  for (const int64_t piece : {int64_t{1}, int64_t{7}, int64_t{128}, tokens}) {
    SCOPED_TRACE(fmt::format("pieces of {} tokens, pages of {}, {} threads", piece, page_tokens, threads));
    expect_bits(paged_logits(engine.ctx, model, ids, piece, page_tokens), want);
    page_tokens *= 2;
  }
}

/// The engine itself scores the prompt with the bits of training, however few of its tokens a pass takes.
void expect_scores_in_pieces(Model& model) {
  const Request request{.prompt = prompt_of(model, kTokens), .max_tokens = 0};
  const std::vector<float> nll = forward_nll(model, request.prompt);
  for (const int64_t piece : {int64_t{1}, int64_t{7}, int64_t{128}, kTokens}) {
    SCOPED_TRACE(fmt::format("steps of {} tokens", piece));
    Batch batch;
    batch.options = {.step_tokens = piece, .max_sequences = 1};
    const Answered got = answer(model, {request}, batch);
    ASSERT_TRUE(got.results[0].scores);
    EXPECT_EQ(got.counts.schedule.steps, (kTokens - 1 + piece - 1) / piece);  // the last token is never fed
    const std::vector<float>& logprobs = got.results[0].scores->logprobs;
    ASSERT_EQ(logprobs.size(), nll.size());
    for (size_t t = 0; t < nll.size(); ++t) ASSERT_EQ(logprobs[t], -nll[t]) << "token " << t + 1;
  }
}

void expect_one_prompt(Model& model) {
  ASSERT_EQ(model.decoder().activations(), DType::f32);
  const Engine engine("cpu", int64_t{64} << 20);
  const Tensor want = forward_logits(engine.ctx, model, prompt_of(model, kTokens));
  for (const std::string& target : cpu_targets()) {
    SCOPED_TRACE(target);
    use_cpu_target(target);
    for (const int threads : {1, 2, 3})
      expect_in_pieces(model, threads, target == "scalar" ? kPlainTokens : kTokens, want);
  }
  use_cpu_target("auto");
  expect_scores_in_pieces(model);
}

TEST(OnePrompt, HasOneSetOfLogitsWithTheEmbeddedModel) {
  expect_one_prompt(*load_model(source_dir() / "recipes/world/base", kTokens));
}

TEST(OnePrompt, HasOneSetOfLogitsWithWindowsAndGroupedHeads) {
  const TemporaryFolder folder;
  // Windows that end within a panel of keys; three layers see 37 tokens, one all.
  write_file(folder / "config.json", R"({"model_type": "qwen2", "vocab_size": 97, "hidden_size": 60,
    "intermediate_size": 77, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10,
    "rms_norm_eps": 1e-5, "initializer_range": 0.2, "tie_word_embeddings": false, "torch_dtype": "float32",
    "use_sliding_window": true, "sliding_window": 37, "max_window_layers": 1})");
  Model::Settings settings;
  settings.model.path = folder.path();
  settings.model.init = "random";
  settings.max_position = kTokens;
  settings.seed = 5;
  Model model(settings);
  expect_one_prompt(model);
}

}  // namespace
}  // namespace tessera
