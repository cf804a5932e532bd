// A prompt has the same logits, bit for bit, in one pass, piece by piece and token by token through the cache, with any
// instructions and number of threads: what a sum is made of does not hang on the rows that share its pass.

#include <gtest/gtest.h>

#include "core/random.h"
#include "infer/cached_passes.h"
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

Steps pieces_of(int64_t tokens, int64_t piece) {
  Steps steps;
  for (int64_t begin = 0; begin < tokens; begin += piece) steps.push_back({std::min(piece, tokens - begin)});
  return steps;
}

void expect_bits(const Rows& got, const Rows& want) {
  ASSERT_LE(got.size(), want.size());
  for (size_t t = 0; t < got.size(); ++t)
    ASSERT_EQ(std::memcmp(got[t].data(), want[t].data(), want[t].size() * sizeof(float)), 0) << "token " << t;
}

/// @param want  of the first target with one thread, in one pass
void expect_in_pieces(Model& model, int threads, int64_t tokens, const Rows& want) {
  const Engine engine("cpu", int64_t{64} << 20, threads);
  const std::vector<int32_t> ids = prompt_of(model, tokens);
  expect_bits(uncached_logits(engine, model, ids), want);
  for (const int64_t piece : {int64_t{1}, int64_t{7}, int64_t{128}, tokens}) {
    SCOPED_TRACE(fmt::format("pieces of {} tokens, {} threads", piece, threads));
    const auto scope = engine.ctx.scratch.scope();
    CachedAttention cache(engine.ctx.scratch, model.decoder(), 1, tokens);
    expect_bits(cached_logits(engine, model, cache, {ids}, pieces_of(tokens, piece))[0], want);
  }
}

void expect_one_prompt(Model& model) {
  ASSERT_EQ(model.decoder().activations(), DType::f32);
  const Rows want = uncached_logits(Engine("cpu", int64_t{64} << 20), model, prompt_of(model, kTokens));
  for (const std::string& target : cpu_targets()) {
    SCOPED_TRACE(target);
    use_cpu_target(target);
    for (const int threads : {1, 2, 3})
      expect_in_pieces(model, threads, target == "scalar" ? kPlainTokens : kTokens, want);
  }
  use_cpu_target("auto");
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
