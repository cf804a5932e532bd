#include "infer/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "core/json.h"
#include "data/tokenizer.h"
#include "io/files.h"
#include "model/packed_attention.h"
#include "support/engine.h"
#include "support/paths.h"

namespace tessera {
namespace {

using test::Engine;

using Prompts = std::vector<std::vector<int32_t>>;

std::vector<int32_t> counting_ids(int64_t count, int32_t first = 1) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = (first + 7 * static_cast<int32_t>(i)) % 71;
  return ids;
}

/// Lengths from one token to more than a pass takes.
Prompts mixed_prompts() {
  return {counting_ids(3),     counting_ids(1, 5),    counting_ids(700, 2),
          counting_ids(17, 9), counting_ids(512, 30), counting_ids(8, 44)};
}

std::vector<float> last_logits(const Engine& engine, Model& model, const std::vector<int32_t>& ids) {
  const auto scope = engine.ctx.scratch.scope();
  const auto tokens = static_cast<int64_t>(ids.size());
  std::vector<int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const AttentionSegment segment{0, tokens, 0, tokens};
  const RowGroup group{0, tokens, model.bound_adapter()};
  const TokenBatch batch{ids, positions, {}, {&segment, 1}, {&group, 1}};
  const Pass pass{engine.ctx, batch, {&model.pool()}};
  PackedAttention attention;
  const TensorView logits = engine.ctx.scratch.allocate({1, model.config().vocab_size}, DType::f32);
  model.decoder().logits(pass, model.decoder().forward(pass, attention), std::span<const int32_t>(positions).last(1),
                         logits);
  return {logits.as<float>().begin(), logits.as<float>().end()};
}

/// The same by computing everything anew for each token.
std::vector<int32_t> greedy_without_cache(const Engine& engine, Model& model, std::vector<int32_t> ids,
                                          int64_t new_tokens) {
  const size_t prompt = ids.size();
  for (int64_t i = 0; i < new_tokens; ++i) ids.push_back(choose_token(last_logits(engine, model, ids), {}, 0));
  return {ids.begin() + static_cast<ptrdiff_t>(prompt), ids.end()};
}

Prompts ids_of(const std::vector<Generated>& all) {
  Prompts ids;
  for (const Generated& one : all) ids.push_back(one.ids);
  return ids;
}

TEST(Generate, EveryBatchSizeGivesWhatComputingEverythingAnewGives) {
  const Engine engine;
  const auto model = test::load_model(test::golden("gqa"), 1024);
  const Prompts prompts = mixed_prompts();
  Prompts expected;
  for (const auto& prompt : prompts) expected.push_back(greedy_without_cache(engine, *model, prompt, 12));
  for (const int64_t batch : {1, 2, 4, 16})
    EXPECT_EQ(ids_of(generate(engine.ctx, *model, prompts, {.max_new_tokens = 12, .batch = batch})), expected) << batch;
}

TEST(Generate, TheMemoryThatWasPlannedIsEnough) {
  const auto model = test::load_model(test::golden("gqa"), 1024);
  const Prompts prompts = mixed_prompts();
  for (const int64_t batch : {1, 3, 16}) {
    const GenerateOptions options{.max_new_tokens = 5, .batch = batch};
    const Engine engine("cpu", plan_generation_bytes(*model, prompts, options, 2), 2);
    EXPECT_NO_THROW(generate(engine.ctx, *model, prompts, options)) << batch;
    EXPECT_EQ(engine.arena.used_bytes(), 0);
  }
}

TEST(Generate, AStopTokenEndsAContinuationAndMakesRoomForTheNextPrompt) {
  const Engine engine;
  const auto model = test::load_model(test::golden("gqa"), 64);
  const Prompts prompts = {counting_ids(3), counting_ids(4, 20), counting_ids(5, 33)};
  const GenerateOptions unstopped{.max_new_tokens = 20, .batch = 1};
  const auto whole = generate(engine.ctx, *model, prompts, unstopped);
  GenerateOptions options = unstopped;
  options.stop = {whole[1].ids[6]};
  const auto stopped = generate(engine.ctx, *model, prompts, options);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto end = std::find(whole[i].ids.begin(), whole[i].ids.end(), options.stop[0]);
    EXPECT_EQ(stopped[i].ids, std::vector<int32_t>(whole[i].ids.begin(), end));
    EXPECT_EQ(stopped[i].finish, end == whole[i].ids.end() ? Finish::max_new_tokens : Finish::stop);
  }
  EXPECT_EQ(stopped[1].finish, Finish::stop);
}

TEST(Generate, EndsAtTheLastPosition) {
  const Engine engine;
  const auto model = test::load_model(test::golden("gqa"), 10), roomy = test::load_model(test::golden("gqa"), 64);
  const Prompts prompts = {counting_ids(8), counting_ids(10, 3)};
  const GenerateOptions options{.max_new_tokens = 20};
  const auto short_ones = generate(engine.ctx, *model, prompts, options),
             long_ones = generate(engine.ctx, *roomy, prompts, options);
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(short_ones[i].finish, Finish::max_position);
    EXPECT_EQ(short_ones[i].ids.size(), 10 - prompts[i].size() + 1);  // the last new token is read by nobody
    EXPECT_TRUE(std::equal(short_ones[i].ids.begin(), short_ones[i].ids.end(), long_ones[i].ids.begin()));
  }
}

TEST(Generate, NamesAPromptThatDoesNotFit) {
  const Engine engine;
  const auto model = test::load_model(test::golden("gqa"), 10);
  try {
    generate(engine.ctx, *model, {counting_ids(3), counting_ids(11)}, {});
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.where(), "prompt 2");
    EXPECT_EQ(error.message(), "the prompt has 11 tokens, but there are 10 positions");
  }
  EXPECT_THROW(generate(engine.ctx, *model, {{}}, {}), UserError);
  EXPECT_TRUE(generate(engine.ctx, *model, {}, {}).empty());
}

/// Writes infinity over a row of the embedding in a folder's model.safetensors.
void damage_embedding(const std::filesystem::path& folder, int64_t row, int64_t width) {
  const std::filesystem::path file = folder / "model.safetensors";
  std::string bytes = test::read_file(file);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  const Json header = Json::parse(std::string_view(bytes).substr(8, length), "header");
  const int64_t begin = header.at("model.embed_tokens.weight").at("data_offsets").items()[0].as_integer();
  const std::vector<float> infinite(static_cast<size_t>(width), std::numeric_limits<float>::infinity());
  std::memcpy(&bytes[8 + length + static_cast<uint64_t>(begin + 4 * row * width)], infinite.data(),
              infinite.size() * 4);
  test::write_file(file, bytes);
}

TEST(Generate, ASequenceThatBreaksLosesNoOther) {
  const Engine engine;
  const Prompts prompts = {counting_ids(3), counting_ids(5, 33)};
  const GenerateOptions options{.max_new_tokens = 4};
  const auto expected = generate(engine.ctx, *test::load_model(test::golden("gqa"), 64), prompts, options);
  int32_t unused = 70;  // by what goes well
  const auto is_in = [&](const std::vector<int32_t>& ids) { return std::count(ids.begin(), ids.end(), unused) > 0; };
  while (is_in(prompts[0]) || is_in(prompts[1]) || is_in(expected[0].ids) || is_in(expected[1].ids)) --unused;

  const test::TemporaryFolder folder;
  std::filesystem::copy(test::golden("gqa"), folder.path(), std::filesystem::copy_options::recursive);
  damage_embedding(folder.path(), unused, 48);
  const auto found =
      generate(engine.ctx, *test::load_model(folder.path(), 64), {prompts[0], {3, unused, 5}, prompts[1]}, options);
  EXPECT_EQ(found[0].ids, expected[0].ids);
  EXPECT_EQ(found[2].ids, expected[1].ids);
  EXPECT_EQ(found[1].finish, Finish::failed);
  EXPECT_EQ(found[1].fault, "the model's logits are not finite");
  EXPECT_EQ(found[1].ids, std::vector<int32_t>{});
  EXPECT_EQ(found[0].fault, "");
}

TEST(Generate, ASampleIsAFunctionOfSeedAndPromptNumberAlone) {
  const Engine engine("reference");
  const auto model = test::load_model(test::golden("gqa"), 64);
  const Prompts prompts(5, counting_ids(6));
  GenerateOptions options{
      .max_new_tokens = 15, .sampling = {.temperature = 1, .top_k = 40, .top_p = 0.95}, .seed = 7, .batch = 5};
  const auto first = ids_of(generate(engine.ctx, *model, prompts, options));
  EXPECT_EQ(ids_of(generate(engine.ctx, *model, prompts, options)), first);
  options.batch = 2;
  EXPECT_EQ(ids_of(generate(engine.ctx, *model, prompts, options)), first);
  for (size_t i = 1; i < first.size(); ++i) EXPECT_NE(first[i], first[0]);
  EXPECT_EQ(ids_of(generate(engine.ctx, *model, {prompts[0], prompts[1]}, options)),
            Prompts(first.begin(), first.begin() + 2));
  options.seed = 8;
  EXPECT_NE(ids_of(generate(engine.ctx, *model, prompts, options))[0], first[0]);
}

TEST(Generate, SamplesFollowTheModelsDistribution) {
  const Engine engine;
  const auto model = test::load_model(test::golden("gqa"), 64);
  constexpr int kDraws = 4000;
  const auto prompt = counting_ids(6);
  const auto drawn = generate(engine.ctx, *model, Prompts(kDraws, prompt),
                              {.max_new_tokens = 1, .sampling = {.temperature = 1.5}, .seed = 3, .batch = 64});
  std::vector<double> p;
  for (const float logit : last_logits(engine, *model, prompt)) p.push_back(std::exp(logit / 1.5));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  std::vector<double> counts(p.size(), 0);
  for (const Generated& one : drawn) counts[static_cast<size_t>(one.ids.at(0))] += 1;
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
  const auto folder = test::shared_data() / "models" / "stories260K";
  const Json reference = Json::parse(read_text_file(folder / "reference_greedy.json"), "reference_greedy.json");
  const Tokenizer tokenizer = Tokenizer::load(folder);
  Prompts prompts, expected;
  std::vector<std::string> texts;
  for (const Json& one : reference.at("cases").items()) {
    prompts.push_back({*tokenizer.bos()});
    for (const int32_t id : tokenizer.encode(one.at("prompt").as_string())) prompts.back().push_back(id);
    expected.emplace_back();
    for (const Json& id : one.at("greedy_ids").items())
      expected.back().push_back(static_cast<int32_t>(id.as_integer()));
    texts.push_back(one.at("text").as_string());
    std::vector<int32_t> prompt_ids;
    for (const Json& id : one.at("prompt_ids").items()) prompt_ids.push_back(static_cast<int32_t>(id.as_integer()));
    ASSERT_EQ(prompts.back(), prompt_ids);
  }
  ASSERT_EQ(prompts.size(), 10u);

  const Engine engine;
  const auto model = test::load_model(folder, 512);
  auto generated =
      generate(engine.ctx, *model, prompts, {.max_new_tokens = 200, .stop = {*tokenizer.eos()}, .batch = GetParam()});
  for (size_t i = 0; i < prompts.size(); ++i) {
    ASSERT_GE(generated[i].ids.size(), expected[i].size());  // the reference ends at 200 tokens, the prompt's included
    generated[i].ids.resize(expected[i].size());
    EXPECT_EQ(generated[i].ids, expected[i]) << texts[i];
    std::vector<int32_t> whole = prompts[i];
    whole.insert(whole.end(), generated[i].ids.begin(), generated[i].ids.end());
    EXPECT_EQ(tokenizer.decode(whole, true), texts[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Batch, Stories, testing::Values(1, 3, 16),
                         [](const auto& info) { return "Of" + std::to_string(info.param); });

}  // namespace
}  // namespace tessera
