#pragma once
// Passes of one batch through a model with one trained block B in place of a run of m blocks s .. s+m-1 of its
// original: the block's error on what the run made of the residual stream, and the model's loss. Only B has gradients.

#include <functional>

#include "compress/replaced.h"
#include "score/forward.h"

namespace tessera {

/// What the run read and made, of the original: x_s and x_{s+m}.  [T, D] each
struct StatePair {
  ConstView input, target;
};
/// Gives them for a batch, from the context's scratch or from where they were kept.
using PairSource = std::function<StatePair(const Context&, const TokenBatch&)>;
/// Runs the original's blocks [0, s + m) for each batch and keeps nothing behind it.
PairSource streamed_pairs(Model& original, const ReplacedRun&);

/// Sums over the tokens of the batch's documents and over channels. Of a counting pass: nothing.
struct BlockError {
  double error = 0;     // (B(x_s) - x_{s+m})²
  double distance = 0;  // (x_s - x_{s+m})²: the error of leaving out the whole run
  double numbers = 0;   // tokens · channels
};
enum class Backward { no, yes };
/// @param backward  yes: the gradient of `error` is added to B's
BlockError block_error(const Context&, Model& student, const ReplacedRun&, const PackedBatch&, const PairSource&,
                       Backward);

/// The student's loss, and the gradient of its sum added to B's: backpropagation ends there.
/// @param keep  what blocks from B on keep of the forward pass: everything or inputs
LossSums backprop_to_block(const Context&, Model& student, const ReplacedRun&, const PackedBatch&, Keep keep);

}  // namespace tessera
