#pragma once
// Logits of sequences that are fed to a model whole, or piece by piece through a cache.

#include <numeric>
#include <vector>

#include "infer/kv_cache.h"
#include "model/packed_attention.h"
#include "support/engine.h"

namespace tessera::test {

using Sequences = std::vector<std::vector<int32_t>>;

/// How many tokens a pass feeds to each sequence.
using Steps = std::vector<std::vector<int64_t>>;

using Rows = std::vector<std::vector<float>>;

/// Logits of every token of the pass, as rows.
inline Rows logits_of_pass(const Engine& engine, Model& model, AttentionContext& attention,
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
  Rows all;
  for (int64_t t = 0; t < batch.tokens(); ++t)
    all.emplace_back(logits.row<float>(t), logits.row<float>(t) + logits.cols());
  return all;
}

inline Rows uncached_logits(const Engine& engine, Model& model, const std::vector<int32_t>& ids) {
  PackedAttention attention;
  std::vector<int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const auto tokens = static_cast<int64_t>(ids.size());
  return logits_of_pass(engine, model, attention, ids, positions, {{0, tokens, 0, tokens}});
}

/// Logits [sequence][token] when the sequences are fed step by step; sequence s lives in slot s + first_slot.
inline std::vector<Rows> cached_logits(const Engine& engine, Model& model, CachedAttention& cache,
                                       const Sequences& sequences, const Steps& steps, int64_t first_slot = 0) {
  std::vector<Rows> all(sequences.size());
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
    const auto rows = logits_of_pass(engine, model, cache, ids, positions, segments);
    for (size_t t = 0; t < rows.size(); ++t) all[owner[t]].push_back(rows[t]);
  }
  return all;
}

}  // namespace tessera::test
