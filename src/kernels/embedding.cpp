#include "kernels/embedding.h"

#include "kernels/checks.h"

namespace tessera {

void embedding(const Context& ctx, ConstView table, IndexArray<int32_t> ids, TensorView y) {
  const Arguments check(ctx, "embedding", y.dtype);
  const auto tokens = static_cast<int64_t>(ids.size());
  check.matrix("y", y, tokens, y.shape[1]);
  check.weight("table", table, {table.shape[0], y.shape[1]});
  check.indices("ids", ids, table.shape[0]);
  ctx.kernels.embedding(ctx, table, ids, y);
}

void embedding_backward(const Context& ctx, IndexArray<int32_t> ids, ConstView dy, TensorView dtable) {
  const Arguments check(ctx, "embedding_backward", dy.dtype);
  check.matrix("dy", dy, static_cast<int64_t>(ids.size()), dy.shape[1]);
  check.matrix("dtable", dtable, dtable.shape[0], dy.shape[1]);
  check.no_alias("dtable", dtable, "dy", dy);
  check.indices("ids", ids, dtable.shape[0]);
  ctx.kernels.embedding_backward(ctx, ids, dy, dtable);
}

}  // namespace tessera
