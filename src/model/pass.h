#pragma once
// One pass over a batch of tokens: which tokens, which values their weights are read with, where gradients go.

#include <span>

#include "kernels/attention.h"
#include "kernels/context.h"
#include "model/bound_adapter.h"
#include "model/weights.h"

namespace tessera {

/// How much of what blocks add enters the residual stream (model/gates.h).
struct BlockGates {
  enum class Of { nothing, blocks, sublayers } of = Of::nothing;
  std::span<const double> values{};  // the host's: one a layer, or of sublayers attention's and the MLP's of each
};

/// Rows of a batch that read the same numbers: the base weights, an adapter or none, gates of the same kind as the
/// other groups'. A group with `values` reads trainable base weights through them, in place of the pass's own reading;
/// frozen weights are still read once for all groups.
struct RowGroup {
  int64_t begin, end;
  BoundAdapter* adapter = nullptr;
  const PoolRead* values = nullptr;
  BlockGates gates{};
};

/// Tokens of several documents, one behind the other. Non-owning.
struct TokenBatch {
  IndexArray<int32_t> ids, positions;
  IndexArray<int64_t> draw_index;  // a token's number in the global batch: keys dropout
  IndexArray<AttentionSegment> segments;
  std::span<const RowGroup> groups;  // the host's; cover all rows, in order
  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
};

/// What a forward pass reads and where a backward pass adds.
struct Pass {
  const Context& ctx;
  const TokenBatch& batch;
  PoolRead read;
  ParameterPool* pool = nullptr;  // gradients; null in evaluation
  uint64_t dropout_seed = 0, step = 0;
  bool training = false;    // dropout is on
  TensorView gate_grads{};  // += , like BlockGates::values, in the activations' dtype; empty: nobody wants them

  /// [tokens, cols] of the pass's scratch
  TensorView rows(int64_t cols, DType dtype) const { return ctx.scratch.allocate({batch.tokens(), cols}, dtype); }
};

}  // namespace tessera
