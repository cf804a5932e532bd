#pragma once
// From logits to a token.

#include <cstdint>
#include <span>

namespace tessera {

/// Which tokens may come next, and how likely.
struct Sampling {
  double temperature = 0;  // logits are divided by it; 0: always the most likely token
  int64_t top_k = 0;       // only the k most likely tokens; 0: all
  double top_p = 1;        // then only the fewest most likely tokens whose share reaches p
};

/// The most likely token (the lowest id on a tie) when temperature is 0, else the token at place `uniform` of the
/// cumulative distribution softmax(logits / temperature), cut to top_k and then top_p (at least one token stays)
/// and normalised again.
/// @param logits   [vocab]
/// @param uniform  in [0, 1)
/// @throws UserError when a logit that matters is not finite
/// Holtzman et al. 2020, arXiv:1904.09751 (top_p).
int32_t choose_token(std::span<const float> logits, const Sampling&, double uniform);

}  // namespace tessera
