#pragma once
// One block: norm, attention, norm, MLP, each half added to the residual, through gates or not. Explicit forward and
// backward, no tape. A block knows its weights and an attention, not the network around it: a decoder is one user.

#include "model/attention.h"
#include "model/mlp.h"

namespace tessera {

/// What the attention half of a block keeps for its backward pass: what took products to make. The normed residual is
/// made again. Shapes: T tokens, D hidden.
struct AttentionSaved {
  TensorView inv_rms;            // [T]
  TensorView q, k, v, attended;  // [T, heads · head_dim]; q and k after their norms and RoPE
  TensorView lse;                // [T, heads]
  NormSaved q_norm, k_norm;
  LinearSaved q_linear, k_linear, v_linear, o_linear;
};

/// What a block keeps for its backward pass. Views into the arena; those of a half that no block has are empty.
struct BlockSaved {
  TensorView input, middle;  // [T, D] the residual, before and after attention
  AttentionSaved attention;
  MlpSaved mlp;
  // Of gated blocks, [T, D]: what the gate scales, not yet scaled, or the block's output where the ordinary path ran;
  // and attention's part where it has a gate of its own.
  TensorView part, attention_part;
};

/// A block: which weights, what kind of attention, eps of its norms.
struct Block {
  const WeightSet& weights;
  const BlockWeights& parts;
  AttentionSpec attention;
  double norm_eps;
};

/// From the scratch of the pass. @param blocks  all that use what is allocated, of the same widths: linears have room
/// for what the widest delta keeps
BlockSaved allocate_saved(const Pass&, const WeightSet&, const AttentionSpec&, const std::vector<BlockWeights>& blocks);

/// From a block's input to q, k and v before RoPE: everything in front of attention. The block has that half.
void block_begin(const Pass&, const Block&, ConstView hidden, BlockSaved&);
/// hidden <- from the attended output to the block's end.
/// @param keep  the residual between attention and MLP is kept, too
void block_end(const Pass&, const Block&, BlockSaved&, bool keep, TensorView hidden);

/// hidden <- block(hidden). A half that the block lacks adds nothing: the bits of a block whose half is shut by a gate.
/// @param keep  what the backward pass reads is kept
void block_forward(const Pass&, const Block&, AttentionContext&, BlockSaved&, bool keep, TensorView hidden);

/// What the linears of a block read. Of a half that the block lacks they are empty; of one that a gate left out they
/// mean nothing.
struct BlockInputs {
  ConstView attention, attended;  // of q, k and v [T, D]; of o [T, heads · head_dim]
  ConstView mlp, activated;       // of gate and up [T, D]; of down [T, I]
};
/// Of a block that was run and kept: what is not in `saved` is made again, in the pass's scratch.
BlockInputs block_inputs(const Pass&, const Block&, const BlockSaved& saved);

/// dhidden: gradient of the block's output on entry, of its input on exit (left undefined when `need_input` is false).
/// What is kept is spent.
void block_backward(const Pass&, const Block&, TrainableAttention&, BlockSaved&, TensorView dhidden, bool need_input);

}  // namespace tessera
