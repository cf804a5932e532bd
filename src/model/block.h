#pragma once
// One block of the decoder: norm, attention, norm, SwiGLU, each added to the residual, through gates or not. Explicit
// forward and backward, no tape.

#include "model/attention.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/parts.h"
#include "model/weight_set.h"

namespace tessera {

/// What each linear keeps; empty where it keeps nothing.
struct BlockLinears {
  LinearSaved q, k, v, o, gate, up, down;
};

/// What a block keeps for its backward pass. Views into the arena. Shapes: T tokens, D hidden, I intermediate.
struct BlockSaved {
  TensorView input, inv_rms_1, normed_1;   // [T, D], [T], [T, D]
  TensorView q, k, v, attended, lse;       // after RoPE
  TensorView middle, inv_rms_2, normed_2;  // residual after attention
  TensorView gate, up, activated;          // [T, I]
  BlockLinears linears;
  // Of gated blocks, [T, D]: what the gate scales, not yet scaled, or the block's output where the ordinary path ran;
  // and attention's part where it has a gate of its own.
  TensorView part, attention_part;
};

/// A block: which weights, and how wide.
struct Block {
  const WeightSet& weights;
  const BlockWeights& parts;
  const ModelConfig& config;
  AttentionSpec attention;
};

/// From the scratch of the pass. @param blocks  all that use what is allocated: linears have room for what the widest
/// keeps
BlockSaved allocate_saved(const Pass&, const WeightSet&, const ModelConfig&, const std::vector<BlockWeights>& blocks);

/// From a block's input to q, k and v before RoPE: everything in front of attention.
void block_begin(const Pass&, const Block&, ConstView hidden, BlockSaved&);
/// hidden <- from the attended output to the block's end.
/// @param keep  the residual between attention and MLP is kept, too
void block_end(const Pass&, const Block&, BlockSaved&, bool keep, TensorView hidden);

/// hidden <- block(hidden). @param keep  what the backward pass reads is kept
void block_forward(const Pass&, const Block&, AttentionContext&, BlockSaved&, bool keep, TensorView hidden);

/// dhidden: gradient of the block's output on entry, of its input on exit (left undefined when `need_input` is false).
void block_backward(const Pass&, const Block&, TrainableAttention&, BlockSaved&, TensorView dhidden, bool need_input);

}  // namespace tessera
