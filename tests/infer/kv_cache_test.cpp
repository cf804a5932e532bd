// Logits of passes that read a cache against those of whole uncached passes.

#include "infer/kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "model/packed_attention.h"
#include "support/engine.h"

namespace tessera {
namespace {

using test::Engine;

using Sequences = std::vector<std::vector<int32_t>>;

/// How many tokens a pass feeds to each sequence.
using Steps = std::vector<std::vector<int64_t>>;

constexpr int64_t kMaxPosition = 32;

Sequences sequences_of(const std::string& model) {
  const auto file = SafetensorsReader::open(test::golden(model) / "golden.safetensors");
  const ConstView ids = file.at("input_ids");
  Sequences all;
  for (int64_t b = 0; b < ids.shape[0]; ++b) all.emplace_back(ids.row<int32_t>(b), ids.row<int32_t>(b) + ids.shape[1]);
  return all;
}

/// Logits of every token of the pass, as rows.
std::vector<std::vector<float>> run(const Engine& engine, Model& model, AttentionContext& attention,
                                    const std::vector<int32_t>& ids, const std::vector<int32_t>& positions,
                                    const std::vector<AttentionSegment>& segments) {
  const auto scope = engine.ctx.scratch.scope();
  const RowGroup group{0, static_cast<int64_t>(ids.size()), model.bound_adapter()};
  const TokenBatch batch{ids, positions, {}, segments, {&group, 1}};
  const Pass pass{engine.ctx, batch, {&model.pool()}};
  std::vector<int32_t> rows(ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  const TensorView logits = engine.ctx.scratch.allocate({batch.tokens(), model.config().vocab_size}, DType::f32);
  model.decoder().logits(pass, model.decoder().forward(pass, attention), rows, logits);
  std::vector<std::vector<float>> all;
  for (int64_t t = 0; t < batch.tokens(); ++t)
    all.emplace_back(logits.row<float>(t), logits.row<float>(t) + logits.cols());
  return all;
}

std::vector<std::vector<float>> uncached_logits(const Engine& engine, Model& model, const std::vector<int32_t>& ids) {
  PackedAttention attention;
  std::vector<int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const auto tokens = static_cast<int64_t>(ids.size());
  return run(engine, model, attention, ids, positions, {{0, tokens, 0, tokens}});
}

/// Logits [sequence][token] when the sequences are fed step by step; sequence s lives in slot s + first_slot.
std::vector<std::vector<std::vector<float>>> cached_logits(const Engine& engine, Model& model, CachedAttention& cache,
                                                           const Sequences& sequences, const Steps& steps,
                                                           int64_t first_slot = 0) {
  std::vector<std::vector<std::vector<float>>> all(sequences.size());
  for (const auto& counts : steps) {
    std::vector<int32_t> ids, positions;
    std::vector<AttentionSegment> segments;
    std::vector<size_t> owner;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const int64_t slot = first_slot + static_cast<int64_t>(s), begin = cache.length(slot);
      if (counts[s] == 0) continue;
      segments.push_back(cache.append(slot, static_cast<int64_t>(ids.size()), counts[s]));
      for (int64_t t = begin; t < begin + counts[s]; ++t) {
        ids.push_back(sequences[s][static_cast<size_t>(t)]);
        positions.push_back(static_cast<int32_t>(t));
        owner.push_back(s);
      }
    }
    const auto rows = run(engine, model, cache, ids, positions, segments);
    for (size_t t = 0; t < rows.size(); ++t) all[owner[t]].push_back(rows[t]);
  }
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
  const auto model = test::load_model(test::golden(GetParam().model), kMaxPosition);
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
  const auto model = test::load_model(test::golden(GetParam().model), kMaxPosition);
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
  const auto plain = uncached_logits(engine, *test::load_model(test::golden("gqa"), kMaxPosition), sequences[0]);
  for (const char* method : {"lora", "mos"}) {
    AdapterConfig adapter;
    adapter.method = method;
    const auto model = test::load_model(test::golden("gqa"), kMaxPosition, adapter);
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
  const auto model = test::load_model(test::golden("gqa"), kMaxPosition);
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
  const auto model = test::load_model(test::golden("gqa"), kMaxPosition);
  CachedAttention cache(engine.ctx.scratch, model->decoder(), 2, 4);
  cache.append(0, 0, 3);
  EXPECT_THROW(cache.append(0, 0, 2), InternalError);
  EXPECT_THROW(cache.append(2, 0, 1), InternalError);
  EXPECT_EQ(cache.length(0), 3);
  EXPECT_EQ(cache.append(1, 5, 4).k_begin, 4);
}

}  // namespace
}  // namespace tessera
