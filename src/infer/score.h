#pragma once
#include <span>

#include "model/model.h"

namespace tessera {

/// Σ −ln p(ids[t] | ids[0 .. t−1]) for t >= 1: the negative log-likelihood of a text read as one document. Nothing is in front
/// of ids[0], which is not scored itself: put BOS there where the model expects it. 0 for fewer than two ids.
/// The bound adapter, if any, must be assembled. Scratch: plan_score_bytes.
/// @throws UserError when there are more ids than positions
double sequence_nll(const Context&, Model&, std::span<const int32_t> ids);

/// Bytes of the arena that sequence_nll needs for so many ids.
int64_t plan_score_bytes(Model&, int64_t tokens, int threads);

}  // namespace tessera
