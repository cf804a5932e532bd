#pragma once
// Attention of training and evaluation: a batch of whole documents, no cache.

#include "model/attention.h"

namespace tessera {

/// Attention inside each document of a packed batch; keys and values live in the batch itself.
class PackedAttention final : public TrainableAttention {
 public:
  void attend(const Context&, const AttentionSpec&, const TokenBatch&, TensorView q, TensorView k, ConstView v,
              TensorView out, TensorView lse) override;
  void attend_backward(const Context&, const AttentionSpec&, const TokenBatch&, const Attended&, ConstView dout,
                       TensorView dq, TensorView dk, TensorView dv) override;
};

}  // namespace tessera
