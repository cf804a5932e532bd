#pragma once
// How stable a compressed model is beside its original on a multiple-choice task: on which share of the questions both
// are right or both are wrong, where questions whose options the original tells well apart count more.
// After LLM-Streamline (arXiv:2403.19135). Its published script sums the first k weights, where k is the number of
// consistent questions, in place of their own: figures of that script depend on the order of the questions, and are
// not comparable with these.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tessera {

/// What a model made of one question.
struct QuestionResult {
  std::string name;         // of the question, once in a task
  std::vector<double> nll;  // [options] mean negative log-likelihood of a token of each option, in nats
  bool is_right = false;    // whether it chose the right option
};

/// With consistent_i = both models are right on question i, or both are wrong:
struct Stability {
  /// sum of w_i · consistent_i, w_i = exp(d_i) / sum exp(d), d_i = the population standard deviation over the options
  /// of the original's perplexities exp(nll).
  double stability = 0;
  double effective = 0;      // number of questions that these weights amount to: 1 / sum w². One may have nearly all
  double stability_nll = 0;  // the same sum, d_i of nll in place of exp(nll)
  double agreement = 0;      // the same sum, w_i = 1 / number of questions
};

/// The same for every order of the questions, to the bit. A model against itself is 1 in all but `effective`. Of a task
/// with parts, take the mean of the parts' values.
/// @param task  named in errors
/// @throws UserError for no question, one with fewer than two options, other questions or options in the two lists, and
/// a perplexity of the original that is not finite
Stability stability_of(const std::string& task, std::span<const QuestionResult> original,
                       std::span<const QuestionResult> compressed);

}  // namespace tessera
