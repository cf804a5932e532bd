#pragma once
// From logits to a token.

#include <span>

#include "infer/request.h"

namespace tessera {

/// The most likely token (the lowest id on a tie) when temperature is 0, else the token at place `uniform` of the
/// cumulative distribution softmax(logits / temperature), cut to top_k and then top_p (at least one token stays)
/// and normalised again.
/// @param logits   [vocab]
/// @param uniform  in [0, 1)
/// @throws UserError when a logit that matters is not finite
/// Holtzman et al. 2020, arXiv:1904.09751 (top_p).
int32_t choose_token(std::span<const float> logits, const Sampling&, double uniform);

}  // namespace tessera
