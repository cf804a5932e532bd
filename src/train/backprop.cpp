// Embedding, layers, head and loss, and the same way back. Between the two each layer holds what its backward pass
// reads (`saved`): everything, or with checkpointed activations its input alone, from which the block is run once more.

#include "train/backprop.h"

#include "kernels/elementwise.h"
#include "model/packed_attention.h"

namespace tessera {

LossSums backprop_batch(const Context& ctx, Model& model, const PackedBatch& batch, const BackpropOptions& options) {
  const DecoderModel& decoder = model.decoder();
  const auto scope = ctx.scratch.scope();
  const BatchTokens in(ctx, batch, model.bound_adapter(), options.gates);
  const Dropout& dropout = options.dropout;
  const Pass pass{ctx,          in.tokens(),  {&model.pool()}, &model.pool(),
                  dropout.seed, dropout.step, dropout.on,      options.gate_grads};
  PackedAttention attention;
  // What each layer keeps of its forward pass for its backward pass.
  std::vector<BlockSaved> saved(static_cast<size_t>(decoder.num_layers()));
  const Keep keep = options.checkpoint_activations ? Keep::inputs : Keep::everything;

  const TensorView hidden = decoder.embed(pass);
  decoder.blocks(pass, decoder.all_layers(), attention, hidden, keep, saved);
  const TensorView dhidden = pass.rows(hidden.cols(), decoder.activations());
  // The head adds its gradient here, and the layers, from the last to the first, carry it on in the same buffer.
  fill(ctx, 0, dhidden);
  const RowScores scores = score_hidden(pass, decoder, hidden, in.rows(), in.labels(), dhidden);
  decoder.blocks_backward(pass, decoder.all_layers(), attention, keep, saved, dhidden);
  decoder.embed_backward(pass, dhidden);
  return sum_up(ctx, batch, in.scored(), scores);
}

int64_t plan_backprop_bytes(Model& model, int64_t rows, int64_t sequence_length, int threads,
                            const BackpropOptions& options) {
  return plan_widest(rows, sequence_length, model.pool().device(), threads,
                     [&](const Context& ctx, const PackedBatch& batch) { backprop_batch(ctx, model, batch, options); });
}

}  // namespace tessera
