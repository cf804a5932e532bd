#include "compress/moments.h"

#include <array>

#include "compress/calibration.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "kernels/calibration.h"
#include "kernels/elementwise.h"
#include "kernels/host_work.h"
#include "kernels/upload.h"
#include "model/packed_attention.h"
#include "score/forward.h"

namespace tessera {
namespace {

/// The vectors of one block, in the order in which they are stored.
constexpr int kVectors = 4;
using Widths = std::array<int64_t, kVectors>;

Widths widths_of(const DecoderModel& decoder, int layer) {
  const BlockWeights& parts = decoder.block_weights(layer);
  const auto input = [&](int weight) { return decoder.weight(weight)->shape()[1]; };
  return {input(parts.q), input(parts.o), input(parts.gate), input(parts.down)};
}

std::array<std::vector<double>*, kVectors> vectors_of(InputMoments& moments) {
  return {&moments.attention, &moments.o, &moments.mlp, &moments.down};
}

}  // namespace

std::vector<double> open_halves(const FoldPlan& plan) {
  std::vector<double> open(2 * static_cast<size_t>(plan.base.layers), 1.0);
  for (const int64_t block : plan.removed) open[static_cast<size_t>(2 * block)] = open[2 * block + 1] = 0;
  for (const auto& [block, part] : plan.removed_halves) open[2 * block + (part == BlockHalf::mlp ? 1 : 0)] = 0;
  return open;
}

std::vector<double> input_squares(const Context& ctx, Model& model, const PackedBatch& batch,
                                  std::span<const double> open) {
  const auto scope = ctx.scratch.scope();
  const DecoderModel& decoder = model.decoder();
  const BatchTokens in(ctx, batch, model.bound_adapter(), {BlockGates::Of::sublayers, open});
  const std::vector<int32_t> tokens = document_tokens(batch);
  const IndexArray<int32_t> rows = upload(ctx, tokens);
  const Pass pass{ctx, in.tokens(), {&model.pool()}};
  const int layers = decoder.num_layers();
  int64_t count = 0;
  for (int layer = 0; layer < layers; ++layer)
    for (const int64_t width : widths_of(decoder, layer)) count += width;
  const TensorView sums = ctx.scratch.allocate({count}, DType::f64);
  fill(ctx, 0, sums);

  PackedAttention attention;
  std::vector<BlockSaved> saved(static_cast<size_t>(layers));
  const TensorView hidden = decoder.embed(pass);
  int64_t place = 0;
  for (int layer = 0; layer < layers; ++layer) {
    const auto inner = ctx.scratch.scope();  // the next block takes the same memory
    decoder.blocks(pass, {layer, layer + 1}, attention, hidden, Keep::everything, saved);
    const BlockInputs in_block = decoder.inputs_of(pass, layer, saved[static_cast<size_t>(layer)]);
    const std::array inputs = {in_block.attention, in_block.attended, in_block.mlp, in_block.activated};
    const Widths widths = widths_of(decoder, layer);
    for (size_t i = 0; i < kVectors; ++i) {
      const size_t half = 2 * static_cast<size_t>(layer) + i / 2;
      if (open[half] != 0) add_column_squares(ctx, inputs[i], rows, sums.slice_rows(place, place + widths[i]));
      place += widths[i];
    }
  }
  std::vector<double> all;
  host_work(ctx, [&] {
    const OnHost host(sums);
    const auto values = host.as<double>();
    all.assign(values.begin(), values.end());
  });
  return all;
}

CalibrationMoments calibration_moments(const StageInputs& in, const FoldPlan& plan, Model* cut) {
  Model& model = cut ? *cut : in.model;
  const std::vector<double> open =
      cut ? std::vector(2 * static_cast<size_t>(model.decoder().num_layers()), 1.0) : kept_gates(in, plan);
  const std::vector<double> total =
      sums_over_calibration_rows(in, "measuring the inputs of blocks",
                                 [&](const PackedBatch& batch) { return input_squares(in.ctx, model, batch, open); });
  CalibrationMoments found{.blocks = {}, .tokens = static_cast<int64_t>(total.back())};
  found.blocks.resize(static_cast<size_t>(in.model.decoder().num_layers()));
  auto from = total.begin();
  for (int layer = 0; layer < model.decoder().num_layers(); ++layer) {
    InputMoments moments;
    const Widths widths = widths_of(model.decoder(), layer);
    for (size_t i = 0; i < kVectors; from += widths[i], ++i) vectors_of(moments)[i]->assign(from, from + widths[i]);
    const int original = model.layers()[static_cast<size_t>(layer)].original;
    found.blocks[static_cast<size_t>(original)] = floored(std::move(moments));
  }
  return found;
}

int64_t plan_moments_bytes(const StageSizes& sizes) {
  Model& model = sizes.model;
  const std::vector<double> open(2 * static_cast<size_t>(model.decoder().num_layers()), 1.0);
  return plan_widest(1, sizes.train.sequence_length, model.pool().device(), sizes.threads,
                     [&](const Context& ctx, const PackedBatch& batch) { input_squares(ctx, model, batch, open); });
}

std::vector<FoldBlock> fold_blocks(Model& model, const FoldPlan& plan, std::vector<InputMoments> moments,
                                   const AbsorbedWeights* absorbed) {
  const DecoderModel& decoder = model.decoder();
  const std::vector<double> open = open_halves(plan);
  TS_CHECK(moments.size() == static_cast<size_t>(plan.base.layers), "moments of {} blocks", moments.size());
  std::vector<FoldBlock> blocks(moments.size());
  for (size_t l = 0; l < blocks.size(); ++l) blocks[l].moments = std::move(moments[l]);
  for (size_t i = 0; i < decoder.specs().size(); ++i) {
    const WeightSpec& spec = decoder.specs()[i];
    if (spec.layer < 0 || spec.role != Role::linear) continue;
    const auto original = static_cast<size_t>(model.layers()[static_cast<size_t>(spec.layer)].original);
    if (open[2 * original + (half_of(spec.part) == BlockHalf::mlp ? 1 : 0)] == 0) continue;
    const auto other = absorbed ? absorbed->of(static_cast<int64_t>(original), spec.part) : nullptr;
    const ConstView weight = other ? other->view() : decoder.weight(static_cast<int>(i))->direct({&model.pool()});
    TS_CHECK(!weight.empty(), "\"{}\" does not lie in memory as it is read", spec.name);
    blocks[original].linears.push_back({spec.type, spec.part, weight});
  }
  return blocks;
}

}  // namespace tessera
