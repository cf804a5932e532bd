// Logits of passes that read a cache against those of whole uncached passes.

#include "infer/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "core/random.h"
#include "infer/cached_passes.h"

namespace tessera {
namespace {

using namespace test;

constexpr int64_t kMaxPosition = 32;

Sequences sequences_of(const std::string& model) {
  const auto file = SafetensorsReader::open(golden(model) / "golden.safetensors");
  const ConstView ids = file.at("input_ids");
  Sequences all;
  for (int64_t b = 0; b < ids.shape[0]; ++b) all.emplace_back(ids.row<int32_t>(b), ids.row<int32_t>(b) + ids.shape[1]);
  return all;
}

/// max |a − b| <= tolerance · max |b|, and the same arg max.
void expect_same(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b,
                 double tolerance = 1e-5) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t t = 0; t < a.size(); ++t) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < b[t].size(); ++i) {
      difference = std::max(difference, std::abs(double{a[t][i]} - b[t][i]));
      size = std::max(size, std::abs(double{b[t][i]}));
    }
    EXPECT_LE(difference, tolerance * size) << "token " << t;
    EXPECT_EQ(std::max_element(a[t].begin(), a[t].end()) - a[t].begin(),
              std::max_element(b[t].begin(), b[t].end()) - b[t].begin())
        << "token " << t;
  }
}

/// Token by token, in pieces, and beside a sequence that gets nothing for a while.
const std::vector<Steps> kSchedules = {
    Steps(13, {1, 1}),
    {{13, 13}},
    {{5, 13}, {1, 0}, {7, 0}},
    {{4, 0}, {1, 9}, {1, 1}, {1, 1}, {6, 2}},
};

struct Case {
  std::string model, backend;
};

class CachedAttentionOf : public testing::TestWithParam<Case> {};

TEST_P(CachedAttentionOf, AnyScheduleOfPassesGivesTheUncachedLogits) {
  const Engine engine(GetParam().backend);
  const auto model = load_model(golden(GetParam().model), kMaxPosition);
  const Sequences sequences = sequences_of(GetParam().model);
  for (const Steps& steps : kSchedules) {
    const auto scope = engine.ctx.scratch.scope();
    CachedAttention cache(engine.ctx.scratch, model->decoder(), 2, 13);
    const auto cached = cached_logits(engine, *model, cache, sequences, steps);
    for (size_t s = 0; s < sequences.size(); ++s) expect_same(cached[s], uncached_logits(engine, *model, sequences[s]));
  }
}

TEST_P(CachedAttentionOf, AFreedSlotKeepsNothingOfItsOldSequence) {
  const Engine engine(GetParam().backend);
  const auto model = load_model(golden(GetParam().model), kMaxPosition);
  Sequences sequences = sequences_of(GetParam().model);
  CachedAttention cache(engine.ctx.scratch, model->decoder(), 2, 13);
  cached_logits(engine, *model, cache, sequences, {{13, 13}});
  std::swap(sequences[0], sequences[1]);
  cache.truncate(0, 0);
  cache.truncate(1, 0);
  const auto again = cached_logits(engine, *model, cache, sequences, {{3, 13}, {10, 0}});
  for (size_t s = 0; s < sequences.size(); ++s) expect_same(again[s], uncached_logits(engine, *model, sequences[s]));
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model : {"gqa", "mqa_tied", "mha_odd", "wide_heads", "llama3_rope", "bf16", "f16_tied"})
    for (const char* backend : {"reference", "cpu"}) all.push_back({model, backend});
  return all;
}
INSTANTIATE_TEST_SUITE_P(All, CachedAttentionOf, testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.model + "_" + info.param.backend; });

TEST(CachedAttention, AnAdapterGivesTheSameWithAndWithoutACache) {
  const Engine engine;
  const Sequences sequences = sequences_of("gqa");
  const auto plain = uncached_logits(engine, *load_model(golden("gqa"), kMaxPosition), sequences[0]);
  for (const char* method : {"lora", "mos"}) {
    AdapterConfig adapter;
    adapter.method = method;
    const auto model = load_model(golden("gqa"), kMaxPosition, adapter);
    const RandomStream stream(3, 4);
    uint64_t i = 0;
    for (float& value : model->pool().trainable().values.as<float>())
      value = 0.2f * static_cast<float>(stream.normal(i++));
    model->assemble(engine.ctx);

    const auto scope = engine.ctx.scratch.scope();
    CachedAttention cache(engine.ctx.scratch, model->decoder(), 2, 13);
    const auto cached = cached_logits(engine, *model, cache, sequences, kSchedules.back());
    for (size_t s = 0; s < sequences.size(); ++s) expect_same(cached[s], uncached_logits(engine, *model, sequences[s]));
    EXPECT_GT(std::abs(cached[0][12][0] - plain[12][0]), 1e-2) << "the adapter does nothing";
  }
}

TEST(CachedAttention, FallsBackToAnEarlierToken) {
  const Engine engine;
  const auto model = load_model(golden("gqa"), kMaxPosition);
  const Sequences sequences = sequences_of("gqa");
  CachedAttention cache(engine.ctx.scratch, model->decoder(), 3, 20);
  cached_logits(engine, *model, cache, {sequences[0]}, {{13}}, 1);
  std::vector<int32_t> other = sequences[0];
  other[6] = (other[6] + 1) % 71;
  cache.truncate(1, 6);
  const auto again = cached_logits(engine, *model, cache, {other}, {{7}}, 1);
  const auto whole = uncached_logits(engine, *model, other);
  expect_same(again[0], {whole.begin() + 6, whole.end()});
}

TEST(CachedAttention, RefusesMoreTokensThanASlotHolds) {
  const Engine engine;
  const auto model = load_model(golden("gqa"), kMaxPosition);
  CachedAttention cache(engine.ctx.scratch, model->decoder(), 2, 4);
  cache.append(0, 0, 3);
  EXPECT_THROW(cache.append(0, 0, 2), InternalError);
  EXPECT_THROW(cache.append(2, 0, 1), InternalError);
  EXPECT_EQ(cache.length(0), 3);
  EXPECT_EQ(cache.append(1, 5, 4).k_begin, 4);
}

}  // namespace
}  // namespace tessera
