#pragma once
// Rows of a pool joined into vectors by an index table (MoS), and the adjoint.

#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

/// Assembles vectors from shards: y[j, i·s : (i+1)·s] = pool[index[j·l + i], :].
/// pool [n, s], index [r·l] in [0, n), y [r, l·s]; compute dtype. Copies only: bit-exact.
void gather_shards(const Context&, ConstView pool, IndexArray<int32_t> index, TensorView y);

/// The adjoint: dpool[index[j·l + i], :] += dy[j, i·s : (i+1)·s]. Indices are distinct, so the order does not matter.
void scatter_shards_add(const Context&, IndexArray<int32_t> index, ConstView dy, TensorView dpool);

}  // namespace tessera
