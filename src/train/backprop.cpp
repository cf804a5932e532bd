#include "train/backprop.h"

#include <utility>

#include "train/two_way_pass.h"

namespace tessera {

LossSums backprop_batch(const Context& ctx, Model& model, const PackedBatch& batch, const BackpropOptions& options,
                        LossSums sums) {
  const DecoderModel& decoder = model.decoder();
  const auto scope = ctx.scratch.scope();
  const BatchTokens in(ctx, batch, model.bound_adapter(), options.gates);
  const Dropout& dropout = options.dropout;
  const Pass pass{ctx,          in.tokens(),  {&model.pool()}, &model.pool(),
                  dropout.seed, dropout.step, dropout.on,      options.gate_grads};
  TwoWayPass way(pass, decoder, options.checkpoint_activations ? Keep::inputs : Keep::everything);
  const RowScores scores = score_hidden(pass, decoder, way.hidden(), in.rows(), in.labels(), way.gradient());
  way.finish();
  return sum_up(ctx, batch, in.scored(), scores, std::move(sums));
}

int64_t plan_backprop_bytes(Model& model, int64_t rows, int64_t sequence_length, int threads,
                            const BackpropOptions& options) {
  return plan_widest(rows, sequence_length, model.pool().device(), threads,
                     [&](const Context& ctx, const PackedBatch& batch) { backprop_batch(ctx, model, batch, options); });
}

}  // namespace tessera
