#include "infer/logprobs.h"

#include <algorithm>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/functions/functions.h"
#include "infer/shortlist.h"
#include "kernels/cross_entropy.h"
#include "kernels/table.h"
#include "kernels/upload.h"

namespace tessera {
namespace {

/// Scratch for some rows.
struct RowState {
  TensorView chunk;     // [rows, chunk]
  SoftmaxRows vectors;  // [rows]

  RowState(const Context& ctx, int64_t rows, int64_t columns)
      : chunk(ctx.scratch.allocate({rows, columns}, DType::f32)) {
    for (TensorView* view : {&vectors.row_max, &vectors.row_sum, &vectors.target, &vectors.rescale})
      *view = ctx.scratch.allocate({rows}, DType::f32);
    vectors.best = ctx.scratch.allocate({rows}, DType::i32);
  }
};

/// Maxima and sums of the rows. The softmax overwrites what it reads, so that it is given copies.
void sum_rows(const Context& ctx, ConstView logits, const RowState& state, const IndexArray<int32_t>& labels) {
  const int64_t vocab = logits.cols(), chunk = state.chunk.cols();
  ctx.kernels.softmax_begin(ctx, state.vectors);
  for (int64_t begin = 0; begin < vocab; begin += chunk) {
    const int64_t end = std::min(begin + chunk, vocab);
    const TensorView copied = state.chunk.slice_cols(0, end - begin);
    if (!ctx.scratch.is_counting()) copy(logits.slice_cols(begin, end), copied);
    ctx.kernels.softmax_chunk(ctx, {.logits = copied, .vocab_begin = begin, .labels = labels, .rows = state.vectors});
  }
}

void normalise(const Context& ctx, ConstView logits, std::span<RowNormaliser> rows) {
  const auto scope = ctx.scratch.scope();
  const RowState state(ctx, logits.shape[0], std::min(kChunkColumns, logits.cols()));
  // No label is asked about; each row has to have one.
  const std::vector<int32_t> labels(rows.size(), 0);
  sum_rows(ctx, logits, state, upload(ctx, labels));
  if (ctx.scratch.is_counting()) return;
  const OnHost max(state.vectors.row_max), sum(state.vectors.row_sum);
  for (size_t n = 0; n < rows.size(); ++n) rows[n] = {max.as<float>()[n], functions::log(sum.as<float>()[n])};
}

}  // namespace

std::vector<RowNormaliser> normalise_rows(const Context& ctx, ConstView logits) {
  TS_CHECK(logits.shape.rank == 2 && logits.dtype == DType::f32 && logits.cols() > 0,
           "logits are {} of {}, expected rows of f32", logits.shape.text(), name_of(logits.dtype));
  const int64_t rows = logits.shape[0];
  std::vector<RowNormaliser> result(static_cast<size_t>(rows));
  for (int64_t begin = 0; begin < rows; begin += kScoredRows) {
    const int64_t end = std::min(begin + kScoredRows, rows);
    normalise(ctx, logits.slice_rows(begin, end),
              std::span(result).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
  }
  return result;
}

TokenLogprobs logprobs_of(std::span<const float> logits, RowNormaliser normaliser, int32_t token, int64_t k) {
  TS_CHECK(0 <= token && token < static_cast<int64_t>(logits.size()), "token {} of {}", token, logits.size());
  const auto told = [&](int32_t id) { return TokenLogprob{id, normaliser.logprob(logits[static_cast<size_t>(id)])}; };
  const auto likelier = [&](int32_t a, int32_t b) {
    const float of_a = logits[static_cast<size_t>(a)], of_b = logits[static_cast<size_t>(b)];
    return of_a != of_b ? of_a > of_b : a < b;
  };
  TokenLogprobs result{.token = told(token)};
  if (k <= 0) return result;
  Shortlist<int32_t, decltype(likelier)> best(static_cast<size_t>(k), likelier);
  for (size_t id = 0; id < logits.size(); ++id) best.offer(static_cast<int32_t>(id));
  for (const int32_t id : best.take()) result.top.push_back(told(id));
  return result;
}

}  // namespace tessera
