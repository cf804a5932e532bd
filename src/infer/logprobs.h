#pragma once
// Logarithms of probabilities under the model's logits, with the bits that training and evaluation give them.

#include <span>
#include <vector>

#include "infer/request.h"
#include "kernels/context.h"

namespace tessera {

/// What turns a row's logits into logarithms of probabilities.
struct RowNormaliser {
  float max, log_sum;  // of the row: the largest logit, log Σ exp(logit − max)

  /// −nll of cross_entropy: −((max − logit) + log_sum).
  float logprob(float logit) const { return -((max - logit) + log_sum); }
};

/// One for each row, summed in chunks of kChunkColumns as cross_entropy does: a row's numbers hang on that row alone.
/// The logits stay as they are. Scratch: up to kScoredRows rows of a chunk, and five vectors of rows.
/// With a counting arena nothing is read, and the numbers are zeros.
/// @param logits  [rows, vocab] f32 on the context's device; rows may be strided
std::vector<RowNormaliser> normalise_rows(const Context&, ConstView logits);

/// A token's logprob and those of the k most likely tokens: by the logit, the lower id first on a tie.
/// @param logits  [vocab], the row that the normaliser is of
TokenLogprobs logprobs_of(std::span<const float> logits, RowNormaliser, int32_t token, int64_t k);

}  // namespace tessera
