#include "kernels/shards.h"

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {
namespace {

void check_shards(const Arguments& check, ConstView pool, IndexArray<int32_t> index, const ConstView& vectors) {
  const int64_t rows = vectors.shape[0], width = vectors.shape[1], shard = pool.shape[1];
  check.matrix("pool", pool, pool.shape[0], shard);
  check.matrix("vectors", vectors, rows, width);
  TS_CHECK(shard > 0 && width % shard == 0, "shards: vectors of {} cannot be cut into shards of {}", width, shard);
  check.count("index", static_cast<int64_t>(index.size()), rows * (width / shard));
  check.indices("index", index, pool.shape[0]);
  check.no_alias("the pool", pool, "the vectors", vectors);
}

}  // namespace

void gather_shards(const Context& ctx, ConstView pool, IndexArray<int32_t> index, TensorView y) {
  check_shards(Arguments(ctx, "gather_shards", pool.dtype), pool, index, y);
  ctx.kernels.gather_shards(ctx, pool, index, y);
}

void scatter_shards_add(const Context& ctx, IndexArray<int32_t> index, ConstView dy, TensorView dpool) {
  check_shards(Arguments(ctx, "scatter_shards_add", dpool.dtype), dpool, index, dy);
  ctx.kernels.scatter_shards_add(ctx, index, dy, dpool);
}

}  // namespace tessera
