#include "model/decoder.h"

#include <array>
#include <cmath>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"

namespace tessera {

DecoderModel::DecoderModel(const ModelConfig& config, std::vector<WeightSpec> specs, std::vector<Weight> weights,
                           int64_t max_position, DType activations, Memory memory, Device device)
    : config_(config),
      weights_(std::move(specs), std::move(weights), activations),
      parts_(decoder_parts(weights_.specs())),
      max_position_(max_position),
      rope_(make_rope_table(config, memory == Memory::counted ? std::min<int64_t>(1, max_position) : max_position,
                            activations, device)) {}

int64_t DecoderModel::table_bytes() const { return max_position_ * config_.head_dim * size_of(activations()); }

AttentionSpec DecoderModel::attention_spec(int layer) const {
  const LayerAttention own = config_.attention_of(layer);
  return {layer,
          config_.num_attention_heads,
          config_.num_key_value_heads,
          config_.head_dim,
          1.0 / std::sqrt(static_cast<double>(config_.head_dim)),
          own.rotary ? &rope_ : nullptr,
          own.window};
}

Block DecoderModel::block(int layer) const {
  return {weights_, block_weights(layer), attention_spec(layer), config_.rms_norm_eps};
}

BlockSaved DecoderModel::room_for_block(const Pass& pass) const {
  return allocate_saved(pass, weights_, attention_spec(0), parts_.blocks);
}

WeightLease DecoderModel::lease_head(const Pass& pass) const {
  return weights_.lease(pass, std::array{parts_.final_norm, parts_.head});
}

TensorView DecoderModel::embed(const Pass& pass) const {
  const TensorView hidden = pass.rows(config_.hidden_size, activations());
  const WeightLease lease = weights_.lease(pass, std::array{parts_.embedding});
  weights_.for_each_reading(pass, parts_.embedding, [&](const PoolRead& values, int64_t begin, int64_t end) {
    embed_rows(pass, values, begin, end, hidden);
  });
  return hidden;
}

void DecoderModel::embed_rows(const Pass& pass, const PoolRead& values, int64_t begin, int64_t end,
                              TensorView hidden) const {
  const WeightView& view = *weights_.view(parts_.embedding);
  const auto ids = pass.batch.ids.subspan(begin, end - begin);
  if (const ConstView table = view.direct(values); !table.empty())
    return embedding(pass.ctx, table, ids, hidden.slice_rows(begin, end));
  for (int64_t t = begin; t < end; ++t) {  // a row at a time: the table is large and few of its rows are read
    const int64_t id = pass.batch.ids.host()[t];
    TS_CHECK(id >= 0 && id < view.shape()[0], "token {} is outside the vocabulary", id);
    view.gather(pass.ctx, values, {id, id + 1}, hidden.slice_rows(t, t + 1));
  }
}

void DecoderModel::embed_backward(const Pass& pass, ConstView dhidden) const {
  const WeightView& view = *weights_.view(parts_.embedding);
  if (!view.is_trainable()) return;
  const auto scope = pass.ctx.scratch.scope();
  if (const auto grad = view.direct_grad(*pass.pool))
    return embedding_backward(pass.ctx, pass.batch.ids, dhidden, *grad);
  // A shared embedding: the dense gradient first, then its adjoint into the numbers that it is read from.
  const TensorView dw = pass.ctx.scratch.allocate(view.shape(), pass.pool->dtype());
  fill(pass.ctx, 0, dw);
  embedding_backward(pass.ctx, pass.batch.ids, dhidden, dw);
  view.scatter_add(pass.ctx, dw, *pass.pool);
}

void DecoderModel::blocks(const Pass& pass, LayerRange layers, AttentionContext& attention, TensorView hidden,
                          Keep keep, std::span<BlockSaved> saved) const {
  attention.plan(pass.batch, layers);
  for (int layer = layers.begin; layer < layers.end; ++layer) {
    const WeightLease lease = weights_.lease(pass, LayerRange{layer, layer + 1});
    if (keep == Keep::everything) {
      BlockSaved& kept = saved[static_cast<size_t>(layer)];
      kept = room_for_block(pass);
      block_forward(pass, block(layer), attention, kept, true, hidden);
      continue;
    }
    if (keep == Keep::inputs) {
      const TensorView input = pass.rows(config_.hidden_size, activations());
      convert(pass.ctx, hidden, input);
      saved[static_cast<size_t>(layer)].input = input;
    }
    const auto scope = pass.ctx.scratch.scope();  // the next block takes the same memory
    BlockSaved local = room_for_block(pass);
    block_forward(pass, block(layer), attention, local, false, hidden);
  }
}

BlockInputs DecoderModel::inputs_of(const Pass& pass, int layer, const BlockSaved& saved) const {
  const WeightLease lease = weights_.lease(pass, LayerRange{layer, layer + 1});
  return block_inputs(pass, block(layer), saved);
}

TensorView DecoderModel::forward(const Pass& pass, AttentionContext& attention) const {
  const TensorView hidden = embed(pass);
  blocks(pass, all_layers(), attention, hidden);
  return hidden;
}

void DecoderModel::blocks_backward(const Pass& pass, LayerRange layers, TrainableAttention& attention, Keep keep,
                                   std::span<BlockSaved> saved, TensorView dhidden) const {
  const bool trains_embedding = weights_.is_trainable(parts_.embedding);
  for (int layer = layers.end - 1; layer >= layers.begin; --layer) {
    const auto scope = pass.ctx.scratch.scope();
    const WeightLease lease = weights_.lease(pass, LayerRange{layer, layer + 1});
    BlockSaved& kept = saved[static_cast<size_t>(layer)];
    if (keep == Keep::inputs) {  // run the block again from its kept input, this time keeping everything
      const TensorView again = pass.rows(config_.hidden_size, activations());
      convert(pass.ctx, kept.input, again);
      blocks(pass, {layer, layer + 1}, attention, again, Keep::everything, saved);
    }
    // Below the first block lies only the embedding: where it is frozen, nobody reads the gradient of its output.
    block_backward(pass, block(layer), attention, kept, dhidden, layer > 0 || trains_embedding);
  }
}

void DecoderModel::head(const Pass& pass, ConstView hidden, const HeadArgs& args) const {
  const WeightLease lease = lease_head(pass);
  score_rows(pass, head_part(), hidden, args);
}

void DecoderModel::logits(const Pass& pass, ConstView hidden, IndexArray<int32_t> rows, TensorView logits) const {
  const WeightLease lease = lease_head(pass);
  logits_of_rows(pass, head_part(), hidden, rows, logits);
}

}  // namespace tessera
