#include "kernels/dropout.h"

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {

void dropout(const Context& ctx, ConstView x, const DropoutKey& key, TensorView y, Write write) {
  const Arguments check(ctx, "dropout", x.dtype);
  check.matrix("x", x, x.shape[0], x.shape[1]);
  check.matrix("y", y, x.shape[0], x.shape[1]);
  check.count("draw_index", static_cast<int64_t>(key.draw_index.size()), x.shape[0]);
  check.place("draw_index", key.draw_index);
  TS_CHECK(key.probability >= 0 && key.probability < 1, "dropout: probability {} is not in [0, 1)", key.probability);
  if (write == Write::accumulate) check.no_alias("y", y, "x", x);
  ctx.kernels.dropout(ctx, x, key, y, write);
}

}  // namespace tessera
