// Embedding, layers, then the loss's part, and the same way back. Between the two each layer holds what its backward
// pass reads (`saved`): everything, or with checkpointed activations its input alone, from which the block is run once
// more. One buffer carries the gradient: the loss adds to it, and the layers, from the last to the first, carry it on.

#include "train/two_way_pass.h"

#include "kernels/elementwise.h"

namespace tessera {

TwoWayPass::TwoWayPass(const Pass& pass, const DecoderModel& decoder, Keep keep, int first)
    : pass_(pass),
      decoder_(decoder),
      keep_(keep),
      first_(first),
      end_(decoder.num_layers()),
      saved_(static_cast<size_t>(decoder.num_layers())) {
  const TensorView hidden = decoder.embed(pass);
  if (first > 0) decoder.blocks(pass, {0, first}, attention_, hidden);
  decoder.blocks(pass, {first, end_}, attention_, hidden, keep, saved_);
  // Now: a block that is run again on the way back keeps its input elsewhere.
  for (size_t layer = 1; layer < saved_.size(); ++layer) outputs_.push_back(saved_[layer].input);
  outputs_.push_back(hidden);
  dhidden_ = pass.rows(hidden.cols(), decoder.activations());
  fill(pass.ctx, 0, dhidden_);
}

void TwoWayPass::back_to(int layer) {
  decoder_.blocks_backward(pass_, {layer, end_}, attention_, keep_, saved_, dhidden_);
  end_ = layer;
}

void TwoWayPass::finish() {
  back_to(first_);
  if (first_ == 0) decoder_.embed_backward(pass_, dhidden_);
}

}  // namespace tessera
