#pragma once
// score/: what a batch is scored on, forward passes without gradients, evaluations.
// Training and generation stand on it.

#include "kernels/compute.h"
#include "model/model.h"
#include "score/batch_loss.h"

namespace tessera {

/// A packed batch as a pass reads it. The batch outlives it.
class BatchTokens {
 public:
  /// Uploads the batch's index arrays; they live in the context's scratch: open a scope around it.
  /// @param gates  of all rows; their values outlive it
  BatchTokens(const Context&, const PackedBatch&, BoundAdapter*, BlockGates gates = {});
  BatchTokens(const BatchTokens&) = delete;
  const TokenBatch& tokens() const { return tokens_; }
  const ScoredRows& scored() const { return scored_; }
  const IndexArray<int32_t>& rows() const { return rows_; }      // that are scored
  const IndexArray<int32_t>& labels() const { return labels_; }  // there

 private:
  ScoredRows scored_;
  std::vector<AttentionSegment> segments_;
  IndexArray<int32_t> rows_, labels_;
  // All rows read the same weights and adapter: one group.
  RowGroup group_;
  TokenBatch tokens_;
};

/// Of each scored row, from the pass's scratch.
struct RowScores {
  TensorView nll;   // [rows]
  TensorView best;  // [rows] i32, arg max of the logits
};
/// Final norm, head and cross-entropy. @param dhidden  [T, D] += ; empty: no gradients
RowScores score_hidden(const Pass&, const DecoderModel&, ConstView hidden, IndexArray<int32_t> rows,
                       IndexArray<int32_t> labels, TensorView dhidden = {});

/// `sums` with what every metric adds for the batch; nothing of a counting pass, whose rows have no scores.
LossSums sum_up(const Context&, const PackedBatch&, const ScoredRows&, const RowScores&, LossSums sums = {});

/// Which dropout masks a pass draws; none by default.
struct Dropout {
  bool on = false;
  uint64_t seed = 0, step = 0;
};

/// One forward pass over a packed batch, without gradients. A counting pass adds nothing.
/// @param sums  of the batches in front of this one; those that are returned go on from there
LossSums score_batch(const Context&, Model&, const PackedBatch&, const Dropout& = {}, BlockGates gates = {},
                     LossSums sums = {});

/// Bytes of the activation arena that score_batch needs for batches of this size: a dry run with a counting arena.
int64_t plan_score_bytes(Model&, int64_t rows, int64_t sequence_length, int threads);

/// A batch with every token scored, in documents of that length: what plans of memory are made with.
PackedBatch widest_batch(int64_t rows, int64_t sequence_length, int64_t document);

/// The most bytes that `pass(context, batch)` takes from the arena, for batches of this size:
/// a dry run with a counting arena.
template <class Pass>
int64_t plan_widest(int64_t rows, int64_t sequence_length, Device device, int threads, Pass&& pass) {
  int64_t bytes = 0;
  for (const int64_t document : {sequence_length, int64_t{2}}) {  // attention's scratch depends on the documents
    const Compute plan = Compute::counting(device, threads);
    pass(plan.context(), widest_batch(rows, sequence_length, document));
    bytes = std::max(bytes, plan.peak_bytes());
  }
  return bytes;
}

}  // namespace tessera
