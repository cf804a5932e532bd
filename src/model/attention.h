#pragma once
// The seam of attention: who stores keys and values, and which tokens see which.

#include "kernels/rope.h"
#include "model/pass.h"
#include "model/rope_table.h"

namespace tessera {

/// One layer's attention.
struct AttentionSpec {
  int layer;
  int64_t heads, kv_heads, head_dim;
  double scale;
  const RopeTable* rope;  // null: positions do not turn q and k
  int64_t window = 0;     // keys that a token sees, its own the last of them; 0: all before it
};

/// Turns the heads of q and k by their tokens' positions (RopeDirection::backward: their gradients back), in place. A
/// layer without a table turns nothing.
void rotate(const Context&, const AttentionSpec&, const TokenBatch&, RopeDirection, TensorView q, TensorView k);

class AttentionContext {
 public:
  virtual ~AttentionContext() = default;
  /// Called once for each range of layers that a pass runs through, before its first layer: what does not depend on the
  /// layer is made ready here.
  virtual void plan(const TokenBatch&, LayerRange) {}
  /// out [T, heads · head_dim] <- attention. q and k arrive before RoPE and are turned in place.
  /// @param lse  [T, heads], log of each row's sum of exponentials; empty: not wanted
  virtual void attend(const Context&, const AttentionSpec&, const TokenBatch&, TensorView q, TensorView k, ConstView v,
                      TensorView out, TensorView lse) = 0;
};

/// What `attend` read and wrote: q and k after RoPE.
struct Attended {
  ConstView q, k, v, out, lse;
};

/// An attention that can be trained through.
class TrainableAttention : public AttentionContext {
 public:
  /// Gradients of q, k (before RoPE) and v are assigned. Rows outside every segment get zeros.
  virtual void attend_backward(const Context&, const AttentionSpec&, const TokenBatch&, const Attended&, ConstView dout,
                               TensorView dq, TensorView dk, TensorView dv) = 0;
};

}  // namespace tessera
