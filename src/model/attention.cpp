#include "model/attention.h"

namespace tessera {

void rotate(const Context& ctx, const AttentionSpec& spec, const TokenBatch& batch, RopeDirection direction,
            TensorView q, TensorView k) {
  if (!spec.rope) return;
  for (const TensorView& turned : {q, k})
    rope(ctx, turned, spec.head_dim, batch.positions, spec.rope->cos.view(), spec.rope->sin.view(), direction);
}

}  // namespace tessera
