// The fused head, for every backend alike: chunks of logits go through gemm and softmax_chunk and are gone.
//
//            chunk 0   chunk 1   ...            for each block of rows
//   rows  [ logits ][ logits ][ ... ]           one buffer [rows, chunk], reused
//
// Frozen weight, one pass: dhidden = Σ_chunks E·W with E = exp(logits − running maximum), rescaled when the maximum
// moves; at the end dhidden <- grad_scale · (dhidden / Σ E − weight[label]). Trained weight, two passes: the first
// finds lse, the second recomputes the logits and turns them into gradients, which both products read.

#include "kernels/cross_entropy.h"

#include <algorithm>

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {
namespace {

/// Scratch for one block of rows. The vectors of a row hold the compute dtype.
struct RowState {
  TensorView logits;      // [rows, chunk]
  SoftmaxRows softmax;    // [rows]
  TensorView label_rows;  // [rows, dim], one pass only
};

/// The arguments of one block of rows.
CrossEntropyArgs slice(const CrossEntropyArgs& args, int64_t begin, int64_t end) {
  CrossEntropyArgs part = args;
  part.hidden = args.hidden.slice_rows(begin, end);
  part.labels = args.labels.subspan(begin, end - begin);
  part.nll = args.nll.slice_rows(begin, end);
  if (!args.best.empty()) part.best = args.best.slice_rows(begin, end);
  if (!args.dhidden.empty()) part.dhidden = args.dhidden.slice_rows(begin, end);
  return part;
}

bool is_one_pass(const CrossEntropyArgs& args) { return !args.dhidden.empty() && args.dweight.empty(); }

RowState allocate(const Context& ctx, const CrossEntropyArgs& args) {
  const int64_t rows = args.hidden.rows();
  const DType dtype = args.hidden.dtype;
  RowState state;
  state.logits = ctx.scratch.allocate({rows, args.chunk}, dtype);
  SoftmaxRows& vectors = state.softmax;
  for (TensorView* view : {&vectors.row_max, &vectors.row_sum, &vectors.target, &vectors.rescale})
    *view = ctx.scratch.allocate({rows}, dtype);
  if (is_one_pass(args)) state.label_rows = ctx.scratch.allocate({rows, args.hidden.cols()}, dtype);
  vectors.best = args.best.empty() ? ctx.scratch.allocate({rows}, DType::i32) : args.best;
  return state;
}

int64_t vocabulary(const CrossEntropyArgs& args) { return args.weight_rows ? args.vocab : args.weight.shape[0]; }

/// The chunk's part of the buffer, with logits.
TensorView chunk_logits(const Context& ctx, const CrossEntropyArgs& args, const RowState& state, int64_t begin,
                        int64_t end) {
  const TensorView logits = state.logits.slice_cols(0, end - begin);
  find_logits(ctx, {args.hidden, args.weight, args.weight_rows, args.tile}, begin, end, logits);
  return logits;
}

/// First pass: softmax statistics, nll, lse (in row_max); with a frozen weight dhidden too, but for the label's part.
void forward(const Context& ctx, const CrossEntropyArgs& args, const RowState& state) {
  const int64_t vocab = vocabulary(args);
  ctx.kernels.softmax_begin(ctx, state.softmax);
  for (int64_t begin = 0; begin < vocab; begin += args.chunk) {
    const int64_t end = std::min(begin + args.chunk, vocab);
    const TensorView logits = chunk_logits(ctx, args, state, begin, end);
    ctx.kernels.softmax_chunk(ctx,
                              {.logits = logits, .vocab_begin = begin, .labels = args.labels, .rows = state.softmax});
    if (!is_one_pass(args)) continue;
    if (begin > 0) scale_rows(ctx, state.softmax.rescale, args.dhidden);
    gemm(ctx, {.a = logits, .b = args.weight.slice_rows(begin, end), .c = args.dhidden, .beta = begin > 0 ? 1.0 : 0.0});
  }
  ctx.kernels.softmax_finish(ctx, {.rows = state.softmax,
                                   .nll = args.nll,
                                   .grad_scale = is_one_pass(args) ? std::optional(args.grad_scale) : std::nullopt});
}

/// dhidden <- grad_scale · (dhidden / sum − weight[label])
void finish_one_pass(const Context& ctx, const CrossEntropyArgs& args, const RowState& state) {
  scale_rows(ctx, state.softmax.row_sum, args.dhidden);
  embedding(ctx, args.weight, args.labels, state.label_rows);
  scale_rows(ctx, state.softmax.rescale, state.label_rows);
  add(ctx, state.label_rows, args.dhidden);
}

/// Second pass for a trained weight.
void backward(const Context& ctx, const CrossEntropyArgs& args, const RowState& state) {
  const int64_t vocab = args.weight.shape[0];
  for (int64_t begin = 0; begin < vocab; begin += args.chunk) {
    const int64_t end = std::min(begin + args.chunk, vocab);
    const TensorView logits = chunk_logits(ctx, args, state, begin, end);
    ctx.kernels.softmax_gradient_chunk(ctx, {.logits = logits,
                                             .vocab_begin = begin,
                                             .labels = args.labels,
                                             .lse = state.softmax.row_max,
                                             .grad_scale = args.grad_scale});
    gemm(ctx, {.a = logits, .b = args.weight.slice_rows(begin, end), .c = args.dhidden, .beta = begin > 0 ? 1.0 : 0.0});
    gemm(ctx, {.a = logits,
               .a_transpose = Transpose::yes,
               .b = args.hidden,
               .c = args.dweight.slice_rows(begin, end),
               .beta = 1,
               .sum = Sum::chain});
  }
}

void check_arguments(const Context& ctx, const CrossEntropyArgs& args) {
  const Arguments check(ctx, "cross_entropy", args.hidden.dtype);
  const int64_t rows = args.hidden.shape[0], dim = args.hidden.shape[1], vocab = vocabulary(args);
  check.matrix("hidden", args.hidden, rows, dim);
  if (args.weight_rows)
    TS_CHECK(args.weight.empty() && args.dhidden.empty(), "cross_entropy: weight_rows beside a weight or gradients");
  else
    check.weight("weight", args.weight, {vocab, dim});
  check.count("labels", static_cast<int64_t>(args.labels.size()), rows);
  check.indices("labels", args.labels, vocab);
  check.vector("nll", args.nll, rows);
  if (!args.best.empty()) check.integers("best", args.best, DType::i32, rows);
  if (!args.dhidden.empty()) check.matrix("dhidden", args.dhidden, rows, dim);
  if (!args.dweight.empty()) check.matrix("dweight", args.dweight, vocab, dim);
  TS_CHECK(args.dweight.empty() || !args.dhidden.empty(), "cross_entropy: dweight without dhidden");
  check.no_alias("dhidden", args.dhidden, "hidden", args.hidden);
  TS_CHECK(vocab > 0 && args.chunk >= 0 && args.tile >= 0,
           "cross_entropy: a vocabulary of {} in chunks of {} and tiles of {}", vocab, args.chunk, args.tile);
}

}  // namespace

void find_logits(const Context& ctx, const LogitOperands& from, int64_t begin, int64_t end, TensorView logits) {
  const int64_t tile = from.tile > 0 ? from.tile : end - begin;
  for (int64_t at = begin; at < end; at += tile) {
    const auto scope = ctx.scratch.scope();
    const int64_t to = std::min(at + tile, end);
    const ConstView weight = from.weight_rows ? from.weight_rows(at, to) : from.weight.slice_rows(at, to);
    gemm(
        ctx,
        {.a = from.hidden, .b = weight, .b_transpose = Transpose::yes, .c = logits.slice_cols(at - begin, to - begin)});
  }
}

void cross_entropy(const Context& ctx, const CrossEntropyArgs& args) {
  check_arguments(ctx, args);
  const int64_t rows = args.hidden.shape[0];
  for (int64_t begin = 0; begin < rows; begin += kScoredRows) {
    CrossEntropyArgs block = slice(args, begin, std::min(begin + kScoredRows, rows));
    block.chunk = std::min(args.chunk > 0 ? args.chunk : kChunkColumns, vocabulary(args));
    const auto scope = ctx.scratch.scope();
    const RowState state = allocate(ctx, block);
    forward(ctx, block, state);
    if (is_one_pass(block)) finish_one_pass(ctx, block, state);
    if (!block.dweight.empty()) backward(ctx, block, state);
  }
}

}  // namespace tessera
