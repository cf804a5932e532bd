#pragma once
// The first four steps from logits to a token: what a request forbids and what it makes more or less likely.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/request.h"

namespace tessera {

/// The tokens of a sequence, in two parts.
struct History {
  std::span<const int32_t> prompt, output;

  int64_t size() const { return static_cast<int64_t>(prompt.size() + output.size()); }
  int32_t operator[](int64_t i) const {
    const auto at = static_cast<size_t>(i);
    return at < prompt.size() ? prompt[at] : output[at - prompt.size()];
  }
};

/// Changes a row of logits l as a request asks for, in this order:
///   1  allowed_token_ids: all others become −∞; logit_bias: l += bias
///   2  −∞ for: the last token of each bad word whose other tokens are the newest ones; each token that would repeat
///      no_repeat_ngram_size tokens of prompt and output (1: any token there); stop_ids, as long as the output has
///      fewer than min_tokens tokens
///   3  repetition_penalty θ, once for each token of prompt and output: l > 0 ? l / θ : l · θ
///   4  presence_penalty, frequency_penalty: l −= presence · [count > 0] + frequency · count, counts of the output
/// Ids outside the vocabulary are banned without effect. Scratch is kept from call to call.
class LogitSteps {
 public:
  explicit LogitSteps(int64_t vocab);

  /// Whether apply() can change anything for a request with so many tokens of output.
  static bool change(const Request&, int64_t output_tokens);

  /// @param values  [vocab]
  /// @throws InternalError for a token of the sequence, or of logit_bias, that is not in the vocabulary
  void apply(const Request&, const History&, std::span<double> values);

 private:
  int32_t& count_of(int32_t id);
  void ban_others(std::span<const int32_t> allowed, std::span<double> values);
  void penalise_repetition(double theta, const History&, std::span<double> values);
  void penalise_counts(const Sampling&, std::span<const int32_t> output, std::span<double> values);

  std::vector<int32_t> counts_;  // [vocab], zeros between calls
};

}  // namespace tessera
