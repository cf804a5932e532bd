#pragma once
// The loss of next-token prediction and its gradient, without the logits of a whole batch.
// The op itself is composed (cross_entropy.cpp): backends supply the softmax of one chunk of the vocabulary.

#include <functional>
#include <optional>

#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

/// What an online softmax keeps of each row: vectors of [rows] in the compute dtype, and best in i32.
struct SoftmaxRows {
  TensorView row_max, row_sum, target, rescale, best;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.row_max, args.row_sum, args.target, args.rescale, args.best);
  }
};

/// One chunk of the vocabulary in an online softmax. For each row n:
///   m' = max(m, max logits),  rescale = exp(m − m'),  logits <- exp(logits − m') in place,
///   sum = sum · rescale + Σ logits,
///   target = logit of labels[n] when it lies in [vocab_begin, vocab_begin + cols),
///   best = index of the largest logit so far (the lowest index on a tie).
/// The op softmax_begin sets the rows before the first chunk: row_max −inf, sum and target 0, best −1.
struct SoftmaxChunkArgs {
  TensorView logits;  // [rows, chunk] in: logits, out: exponentials
  int64_t vocab_begin;
  IndexArray<int32_t> labels;  // [rows]
  SoftmaxRows rows;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.logits, args.labels, args.rows);
  }
};

/// The rows behind the last chunk:
///   nll = (row_max − target) + log row_sum,   row_max <- row_max + log row_sum, which is lse.
/// With grad_scale, the factors of the gradient's one pass: row_sum <- grad_scale / row_sum,  rescale <- −grad_scale.
struct SoftmaxFinishArgs {
  SoftmaxRows rows;
  TensorView nll;  // [rows]
  std::optional<double> grad_scale{};

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.rows, args.nll);
  }
};

/// logits <- grad_scale · (exp(logits − lse) − [column is the label]) in place, for one chunk.
struct SoftmaxGradientArgs {
  TensorView logits;  // [rows, chunk]
  int64_t vocab_begin;
  IndexArray<int32_t> labels;
  ConstView lse;  // [rows] compute dtype
  double grad_scale;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.logits, args.labels, args.lse);
  }
};

/// Makes rows [begin, end) of an output projection's weight, which live until the next call.
using WeightRows = std::function<ConstView(int64_t begin, int64_t end)>;

/// Fused output projection and cross-entropy, in chunks of the vocabulary: no [tokens, vocab] buffer.
///   logits = hidden · weightᵀ,  nll[n] = log Σ exp(logits[n]) − logits[n, labels[n]]
///   dhidden  = grad_scale · (softmax − onehot) · weight   (assigned)
///   dweight += grad_scale · (softmax − onehot)ᵀ · hidden
/// With a frozen weight dhidden is accumulated while the softmax is still running, rescaled as the maximum moves (the
/// idea of online softmax, Milakov & Gimelshein 2018, arXiv:1805.02867, and FlashAttention): one pass, no recomputed
/// logits. A trained weight needs a second pass over the chunks. Rows are taken in blocks, so scratch does not grow
/// with the batch. dhidden may not alias hidden.
struct CrossEntropyArgs {
  ConstView hidden;            // [rows, dim] compute dtype
  ConstView weight;            // [vocab, dim] compute dtype, f32, bf16 or f16
  IndexArray<int32_t> labels;  // [rows], each in [0, vocab)
  double grad_scale = 1;
  TensorView nll;            // [rows] compute dtype
  TensorView best;           // [rows] i32, arg max of the logits; empty to skip
  TensorView dhidden;        // [rows, dim]; empty: no gradients
  TensorView dweight;        // [vocab, dim]; empty: frozen
  int64_t chunk = 0;         // columns of logits that are summed at once; 0: kChunkColumns, which all callers share
  WeightRows weight_rows{};  // in place of `weight`, without gradients
  int64_t vocab = 0;         // rows of the weight, when weight_rows makes them
  int64_t tile = 0;          // rows that weight_rows makes at once; 0: a chunk's
};
void cross_entropy(const Context&, const CrossEntropyArgs&);

/// Columns of logits whose exponentials are one sum, for cross_entropy and distill. One number for any rows and models:
/// the bits of a row's loss and gradient hang on it. Eight of the blocks that a product sums at once. With 49,152
/// columns of width 576 on two threads, 64 rows with gradients take 46 ms, with 1536 at once 53, with all 66 (without
/// gradients 26, 30, 24); 512 rows take 260 to 266 ms with any.
constexpr int64_t kChunkColumns = 3072;

/// Rows whose logits are held at once, by cross_entropy and distill: enough to make the products compute-bound. With
/// kChunkColumns a buffer of 12 MB at most.
constexpr int64_t kScoredRows = 1024;

/// What logits are the product of; with weight_rows, in place of `weight`, its rows are made, `tile` at once.
struct LogitOperands {
  ConstView hidden, weight;
  const WeightRows& weight_rows;
  int64_t tile = 0;
};
/// logits [rows, end − begin] = hidden · weight[begin, end)ᵀ. Tiles do not show: a logit is one row's product.
void find_logits(const Context&, const LogitOperands&, int64_t begin, int64_t end, TensorView logits);

}  // namespace tessera
