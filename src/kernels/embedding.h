#pragma once
// Rows of a table by token id, and the adjoint.

#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

/// y[t] = table[ids[t]].  table [vocab, dim] f32, f64, bf16 or f16; y [tokens, dim] compute dtype.
/// Ids are checked against vocab.
void embedding(const Context&, ConstView table, IndexArray<int32_t> ids, TensorView y);

/// dtable[ids[t]] += dy[t], in ascending t. dtable has the compute dtype.
void embedding_backward(const Context&, IndexArray<int32_t> ids, ConstView dy, TensorView dtable);

}  // namespace tessera
