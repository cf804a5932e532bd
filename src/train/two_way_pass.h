#pragma once
// A pass through a decoder and, layer by layer, back: what losses of every kind do between the embedding and the
// gradients (backprop.h has the cross-entropy's).

#include <vector>

#include "model/decoder.h"
#include "model/packed_attention.h"

namespace tessera {

/// Embeds the batch and runs all layers; their outputs, and the gradient on its way, lie in the pass's scratch. Between
/// the two ways the loss adds its gradient to `gradient()`, which begins as zeros.
class TwoWayPass {
 public:
  /// @param first  the layer at which the way back ends: those in front of it keep nothing
  TwoWayPass(const Pass&, const DecoderModel&, Keep, int first = 0);

  /// The residual stream behind a layer, from the first on, and behind all.  [T, D]
  const ConstView& output(int layer) const { return outputs_[static_cast<size_t>(layer)]; }
  const ConstView& hidden() const { return outputs_.back(); }
  /// Of the stream that the way back has come to.  [T, D]
  const TensorView& gradient() const { return dhidden_; }

  /// Goes back until the stream in front of this layer.
  void back_to(int layer);
  /// To the first layer, and into the embedding where that is the model's first.
  void finish();

 private:
  const Pass& pass_;
  const DecoderModel& decoder_;
  Keep keep_;
  int first_, end_;  // end_: of the layers that have not been run backwards
  PackedAttention attention_;
  std::vector<BlockSaved> saved_;  // what each layer keeps of its forward pass for its backward pass
  std::vector<ConstView> outputs_;
  TensorView dhidden_;
};

}  // namespace tessera
