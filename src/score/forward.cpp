// A batch goes to the device as index arrays, once: token ids, positions, the segments that attention keeps apart, and
// which rows are scored on which labels.

#include "score/forward.h"

#include <algorithm>
#include <utility>

#include "kernels/host_work.h"
#include "kernels/upload.h"
#include "model/packed_attention.h"

namespace tessera {

BatchTokens::BatchTokens(const Context& ctx, const PackedBatch& batch, BoundAdapter* adapter, BlockGates gates)
    : scored_(scored_rows(batch)),
      segments_(segments_of(batch)),
      rows_(upload(ctx, scored_.rows)),
      labels_(upload(ctx, scored_.labels)),
      group_{0, batch.tokens(), adapter, nullptr, gates},
      tokens_{upload(ctx, batch.ids),
              upload(ctx, batch.positions),
              upload(ctx, batch.draw_index),
              upload(ctx, segments_),
              {&group_, 1}} {}

RowScores score_hidden(const Pass& pass, const DecoderModel& decoder, ConstView hidden, IndexArray<int32_t> rows,
                       IndexArray<int32_t> labels, TensorView dhidden) {
  const auto count = static_cast<int64_t>(rows.size());
  const auto vector = [&](DType dtype) {
    // At least one row: a batch without a scored token still has addresses to pass on.
    return pass.ctx.scratch.allocate({std::max<int64_t>(1, count)}, dtype).slice_rows(0, count);
  };
  const RowScores scores{vector(decoder.activations()), vector(DType::i32)};
  decoder.head(pass, hidden,
               {.rows = rows, .labels = labels, .nll = scores.nll, .best = scores.best, .dhidden = dhidden});
  return scores;
}

LossSums sum_up(const Context& ctx, const PackedBatch& batch, const ScoredRows& scored, const RowScores& scores,
                LossSums sums) {
  host_work(ctx, [&] { sums = sum_up(batch, scored, scores.nll, scores.best, std::move(sums)); });
  return sums;
}

LossSums score_batch(const Context& ctx, Model& model, const PackedBatch& batch, const Dropout& dropout,
                     BlockGates gates, LossSums sums) {
  const auto scope = ctx.scratch.scope();
  const BatchTokens in(ctx, batch, model.bound_adapter(), gates);
  const Pass pass{ctx, in.tokens(), {&model.pool()}, nullptr, dropout.seed, dropout.step, dropout.on};
  PackedAttention attention;
  const TensorView hidden = model.decoder().forward(pass, attention);
  const RowScores scores = score_hidden(pass, model.decoder(), hidden, in.rows(), in.labels());
  return sum_up(ctx, batch, in.scored(), scores, std::move(sums));
}

int64_t plan_score_bytes(Model& model, int64_t rows, int64_t sequence_length, int threads) {
  return plan_widest(rows, sequence_length, model.pool().device(), threads,
                     [&](const Context& ctx, const PackedBatch& batch) { score_batch(ctx, model, batch); });
}

// Every token is scored: no batch of this size, cut into such documents, takes more scratch.
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
