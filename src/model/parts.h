#pragma once
// Which weight does what: a decoder's weights by name in place of their numbers.

#include <vector>

#include "model/weights.h"

namespace tessera {

/// The number of a weight that a decoder does without.
constexpr int kAbsent = -1;

/// The numbers of one block's weights.
struct BlockWeights {
  int input_norm = kAbsent, q = kAbsent, k = kAbsent, v = kAbsent, o = kAbsent;  // attention
  int q_bias = kAbsent, k_bias = kAbsent, v_bias = kAbsent;                      // not every family has them
  int mlp_norm = kAbsent, gate = kAbsent, up = kAbsent, down = kAbsent;
};

/// The numbers of all of a decoder's weights.
struct DecoderParts {
  int embedding = kAbsent;
  std::vector<BlockWeights> blocks;
  int final_norm = kAbsent, head = kAbsent;
};

/// Sorts the specs by their parts. Every part occurs once (in each layer); biases once or not at all.
DecoderParts decoder_parts(const std::vector<WeightSpec>& specs);

}  // namespace tessera
