#pragma once
// From logits to a token.

#include <optional>
#include <span>
#include <vector>

#include "infer/distribution.h"
#include "infer/logit_steps.h"
#include "infer/request.h"

namespace tessera {

/// Chooses tokens. In f64 from f32 logits, a tie always goes to the lower id, and every cut keeps at least one token:
///   1 to 4   logits are changed (infer/logit_steps.h)
///   5        temperature T: logit / T; with T = 0 the token with the largest logit is taken, and nothing else is done
///   6 to 9   top_k, top_p, min_p, typical_p cut the distribution (infer/distribution.h)
///   10       draw: in ascending id, the first token whose running sum of probabilities exceeds `uniform`
/// Scratch is kept from call to call: one chooser a thread.
class TokenChooser {
 public:
  explicit TokenChooser(int64_t vocab);

  /// @param logits   [vocab], of the model
  /// @param prompt   ids of the request's prompt
  /// @param output   ids of the continuation so far
  /// @param uniform  in [0, 1), see draw_uniform in infer/draws.h
  /// @returns nothing when the request allows no token here
  /// @throws UserError when a logit is not finite
  std::optional<int32_t> choose(std::span<const float> logits, const Request&, std::span<const int32_t> prompt,
                                std::span<const int32_t> output, double uniform);

 private:
  LogitSteps steps_;
  Distribution distribution_;
  std::vector<double> values_;  // logits after step 4
};

/// What TokenChooser chooses with this sampling for a sequence without a token and without stop tokens.
int32_t choose_token(std::span<const float> logits, const Sampling&, double uniform);

/// @throws UserError when a logit is not finite
void require_finite(std::span<const float> logits);

/// The place of the largest of a row of logits; the lowest on a tie.
/// @throws UserError when a logit is not finite
int32_t most_likely(std::span<const float> logits);

}  // namespace tessera
