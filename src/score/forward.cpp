#include "score/forward.h"

#include <algorithm>

#include "model/packed_attention.h"

namespace tessera {

BatchTokens::BatchTokens(const PackedBatch& batch, BoundAdapter* adapter)
    : scored_(scored_rows(batch)),
      segments_(segments_of(batch)),
      group_{0, batch.tokens(), adapter},
      tokens_{batch.ids, batch.positions, batch.draw_index, segments_, {&group_, 1}} {}

RowScores score_hidden(const Pass& pass, const DecoderModel& decoder, ConstView hidden, std::span<const int32_t> rows,
                       std::span<const int32_t> labels, TensorView dhidden) {
  const auto count = static_cast<int64_t>(rows.size());
  RowScores scores{pass.ctx.scratch.allocate({std::max<int64_t>(1, count)}, decoder.compute()).slice_rows(0, count),
                   std::vector<int32_t>(rows.size())};
  decoder.head(pass, hidden,
               {.rows = rows, .labels = labels, .nll = scores.nll, .best = scores.best, .dhidden = dhidden});
  return scores;
}

LossSums score_batch(const Context& ctx, Model& model, const PackedBatch& batch, const Dropout& dropout) {
  const auto scope = ctx.scratch.scope();
  const BatchTokens in(batch, model.bound_adapter());
  const Pass pass{ctx, in.tokens(), {&model.pool()}, nullptr, dropout.seed, dropout.step, dropout.on};
  PackedAttention attention;
  const TensorView hidden = model.decoder().forward(pass, attention);
  const RowScores scores = score_hidden(pass, model.decoder(), hidden, in.scored().rows, in.scored().labels);
  if (ctx.scratch.is_counting()) return {};
  return sum_up(batch, in.scored(), scores.nll, scores.best);
}

int64_t plan_score_bytes(Model& model, int64_t rows, int64_t sequence_length, int threads) {
  return plan_widest(rows, sequence_length, threads,
                     [&](const Context& ctx, const PackedBatch& batch) { score_batch(ctx, model, batch); });
}

PackedBatch widest_batch(int64_t rows, int64_t sequence_length, int64_t document) {
  PackedBatch batch;
  batch.rows = rows;
  batch.sequence_length = sequence_length;
  const auto tokens = static_cast<size_t>(rows * sequence_length);
  batch.ids.assign(tokens, 0);
  batch.positions.assign(tokens, 0);
  batch.labels.assign(tokens, 0);
  batch.draw_index.assign(tokens, 0);
  for (int64_t begin = 0; begin < rows * sequence_length; begin += document)
    batch.documents.push_back({begin, std::min(begin + document, rows * sequence_length)});
  return batch;
}

}  // namespace tessera
