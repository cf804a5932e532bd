#pragma once
// The decoder's end: final norm, output projection, cross-entropy.

#include "model/model_config.h"
#include "model/parts.h"
#include "model/weight_set.h"

namespace tessera {

/// Which rows of hidden are scored, and what comes out.
struct HeadArgs {
  IndexArray<int32_t> rows, labels;  // scored rows of the batch, ascending, and their labels
  TensorView nll;                    // [rows] out
  TensorView best;                   // [rows] i32, arg max, out; may be empty
  TensorView dhidden;                // [T, D] += ; empty: no gradients
};

/// The weights of the decoder's end.
struct HeadPart {
  const WeightSet& weights;
  const DecoderParts& parts;
  double eps;
};

/// Final norm and fused cross-entropy of the given rows of hidden.
void score_rows(const Pass&, const HeadPart&, ConstView hidden, const HeadArgs&);
/// logits [rows, vocab] of the given rows.
void logits_of_rows(const Pass&, const HeadPart&, ConstView hidden, IndexArray<int32_t> rows, TensorView logits);

}  // namespace tessera
