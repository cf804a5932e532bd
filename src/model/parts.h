#pragma once
// Which weight does what: a network's weights by name in place of their numbers.

#include <vector>

#include "model/weights.h"

namespace tessera {

/// The number of a weight that a network does without.
constexpr int kAbsent = -1;

/// The numbers of one block's weights. A block may lack a half, attention or MLP, but not both; of a half that it has,
/// it has everything that is not optional.
struct BlockWeights {
  int input_norm = kAbsent, q = kAbsent, k = kAbsent, v = kAbsent, o = kAbsent;  // attention
  int q_bias = kAbsent, k_bias = kAbsent, v_bias = kAbsent, o_bias = kAbsent;    // optional
  int q_norm = kAbsent, k_norm = kAbsent;                                        // optional, before RoPE
  int mlp_norm = kAbsent, gate = kAbsent, up = kAbsent, down = kAbsent;          // MLP
  int gate_bias = kAbsent, up_bias = kAbsent, down_bias = kAbsent;               // optional

  bool has_attention() const { return q != kAbsent; }
  bool has_mlp() const { return down != kAbsent; }
};

/// Sorts the specs of blocks by layer and part; those outside blocks are passed over.
/// @throws InternalError for a part that occurs twice, a half with a part missing, or a layer with no half
std::vector<BlockWeights> block_parts(const std::vector<WeightSpec>& specs);

/// The numbers of all of a decoder's weights.
struct DecoderParts {
  int embedding = kAbsent;
  std::vector<BlockWeights> blocks;
  int final_norm = kAbsent, head = kAbsent;
};

/// Sorts all of a decoder's specs. @throws InternalError like block_parts, or when a part outside blocks is missing
DecoderParts decoder_parts(const std::vector<WeightSpec>& specs);

}  // namespace tessera
