#include "infer/forward.h"

namespace tessera {

TensorView run_blocks(const Pass& pass, const DecoderModel& model, AttentionContext& attention) {
  const TensorView hidden =
      pass.ctx.scratch.allocate({pass.batch.tokens(), model.config().hidden_size}, model.compute());
  model.embed(pass, hidden);
  for (int layer = 0; layer < model.num_layers(); ++layer) model.block(pass, layer, attention, nullptr, hidden);
  return hidden;
}

Context counting_context(Arena& arena, int threads) {
  return {.device = {}, .stream = {}, .kernels = kernels_for({}, "counting"), .scratch = arena, .threads = threads};
}

}  // namespace tessera
