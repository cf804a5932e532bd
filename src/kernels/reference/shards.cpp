#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {

void gather_shards(const Context&, ConstView pool, IndexArray<int32_t> index, TensorView y) {
  const int64_t shard = pool.cols(), shards = y.cols() / shard;
  with_compute_type(pool.dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t j = 0; j < y.rows(); ++j)
      // Row j of y is `shards` shards of the pool behind each other, named by row j of the index.
      for (int64_t c = 0; c < y.cols(); ++c) y.row<T>(j)[c] = pool.row<T>(index[j * shards + c / shard])[c % shard];
  });
}

void scatter_shards_add(const Context&, IndexArray<int32_t> index, ConstView dy, TensorView dpool) {
  const int64_t shard = dpool.cols(), shards = dy.cols() / shard;
  with_compute_type(dpool.dtype, [&](auto t) {
    using T = decltype(t);
    // The adjoint: a shard gathers the gradients of all places that read it.
    for (int64_t j = 0; j < dy.rows(); ++j)
      for (int64_t c = 0; c < dy.cols(); ++c) dpool.row<T>(index[j * shards + c / shard])[c % shard] += dy.row<T>(j)[c];
  });
}

}  // namespace tessera::reference
