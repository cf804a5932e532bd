#pragma once
// Which weight does what: a decoder's weights by name in place of their numbers.

#include <vector>

#include "model/weights.h"

namespace tessera {

/// The numbers of one block's weights.
struct BlockWeights {
  int input_norm = -1, q = -1, k = -1, v = -1, o = -1;  // attention
  int mlp_norm = -1, gate = -1, up = -1, down = -1;
};

/// The numbers of all of a decoder's weights.
struct DecoderParts {
  int embedding = -1;
  std::vector<BlockWeights> blocks;
  int final_norm = -1, head = -1;
};

/// Sorts the specs by their parts. Every part occurs once (in each layer).
DecoderParts decoder_parts(const std::vector<WeightSpec>& specs);

}  // namespace tessera
