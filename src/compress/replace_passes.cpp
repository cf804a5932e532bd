#include "compress/replace_passes.h"

#include <array>

#include "compress/calibration.h"
#include "compress/teacher.h"
#include "core/device/memory.h"
#include "kernels/elementwise.h"
#include "kernels/host_work.h"
#include "model/packed_attention.h"
#include "train/two_way_pass.h"

namespace tessera {
namespace {

/// 1 for each row that is a document's token, 0 for padding.  [T]
TensorView document_rows(const Pass& pass, const PackedBatch& batch, DType dtype) {
  const TensorView factors = pass.ctx.scratch.allocate({batch.tokens()}, dtype);
  host_work(pass.ctx, [&] {
    const WrittenOnHost host(factors);
    for (int64_t i = 0; i < batch.tokens(); ++i) set_element(host.view(), i, 0);
    for (const int32_t row : document_tokens(batch)) set_element(host.view(), row, 1);
  });
  return factors;
}

/// x <- (x - target) in the rows of documents, 0 in the others. @return the sum of squares  [1] f64
TensorView subtract(const Pass& pass, ConstView target, ConstView rows, TensorView x) {
  scale(pass.ctx, -1, target, x, Write::accumulate);
  scale_rows(pass.ctx, rows, x);
  const TensorView sum = pass.ctx.scratch.allocate({1}, DType::f64);
  sum_of_squares(pass.ctx, x, sum);
  return sum;
}

double number(const TensorView& sum) { return OnHost(sum).as<double>()[0]; }

}  // namespace

PairSource streamed_pairs(Model& original, const ReplacedRun& run) {
  return [teacher = Teacher(original), run](const Context& ctx, const TokenBatch& batch) -> StatePair {
    const auto states = teacher.states(ctx, batch, std::array{static_cast<int>(run.first), static_cast<int>(run.end)});
    return {states[0], states[1]};
  };
}

BlockError block_error(const Context& ctx, Model& student, const ReplacedRun& run, const PackedBatch& batch,
                       const PairSource& pairs, Backward backward) {
  const auto scope = ctx.scratch.scope();
  const DecoderModel& decoder = student.decoder();
  const auto layer = static_cast<int>(run.first);  // nothing in front of the run is removed: B's number is its index
  const BatchTokens in(ctx, batch, nullptr);
  const Pass pass{ctx, in.tokens(), {&student.pool()}, &student.pool()};
  const StatePair pair = pairs(ctx, in.tokens());
  const TensorView rows = document_rows(pass, batch, decoder.activations());
  const TensorView hidden = pass.rows(pair.input.cols(), decoder.activations());
  convert(ctx, pair.input, hidden);
  const TensorView distance = subtract(pass, pair.target, rows, hidden);

  PackedAttention attention;
  std::vector<BlockSaved> saved(static_cast<size_t>(decoder.num_layers()));
  const Keep keep = backward == Backward::yes ? Keep::everything : Keep::nothing;
  convert(ctx, pair.input, hidden);
  decoder.blocks(pass, {layer, layer + 1}, attention, hidden, keep, saved);
  const TensorView error = subtract(pass, pair.target, rows, hidden);
  if (backward == Backward::yes) {
    scale(ctx, 2, hidden, hidden, Write::assign);
    decoder.blocks_backward(pass, {layer, layer + 1}, attention, keep, saved, hidden);
  }
  BlockError sums;
  host_work(ctx, [&] {
    sums = {.error = number(error),
            .distance = number(distance),
            .numbers = static_cast<double>(document_tokens(batch).size()) * static_cast<double>(hidden.cols())};
  });
  return sums;
}

LossSums backprop_to_block(const Context& ctx, Model& student, const ReplacedRun& run, const PackedBatch& batch,
                           Keep keep) {
  const auto scope = ctx.scratch.scope();
  const DecoderModel& decoder = student.decoder();
  const BatchTokens in(ctx, batch, nullptr);
  const Pass pass{ctx, in.tokens(), {&student.pool()}, &student.pool()};
  TwoWayPass way(pass, decoder, keep, static_cast<int>(run.first));
  const RowScores scores = score_hidden(pass, decoder, way.hidden(), in.rows(), in.labels(), way.gradient());
  way.finish();
  return sum_up(ctx, batch, in.scored(), scores);
}

}  // namespace tessera
