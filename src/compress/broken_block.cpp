#include "compress/broken_block.h"

#include <cmath>

#include "core/device/memory.h"
#include "kernels/elementwise.h"
#include "model/packed_attention.h"
#include "score/forward.h"

namespace tessera {

int64_t first_broken_block(const Context& ctx, Model& model, const PackedBatch& batch, BlockGates gates) {
  const auto scope = ctx.scratch.scope();
  const DecoderModel& decoder = model.decoder();
  const BatchTokens in(ctx, batch, model.bound_adapter(), gates);
  const Pass pass{ctx, in.tokens(), {&model.pool()}};
  PackedAttention attention;
  const Tensor squares({1}, DType::f64, ctx.device);
  const TensorView hidden = decoder.embed(pass);
  for (int layer = 0; layer < decoder.num_layers(); ++layer) {
    decoder.blocks(pass, {layer, layer + 1}, attention, hidden);
    sum_of_squares(ctx, hidden, squares);
    if (!std::isfinite(OnHost(squares.view()).as<double>()[0])) return layer;
  }
  return decoder.num_layers();
}

}  // namespace tessera
