// Examples of label words: the loss of the right choice among all, and how often it is the likeliest.
//
//   loss = nll_answer + log Σ_c exp(−nll_c),   nll_c the sum over the tokens of choice c

#include <algorithm>

#include "core/error.h"
#include "core/functions/functions.h"
#include "score/metrics/metric.h"

namespace tessera {
namespace {

/// Adds one example: the summed nll of each choice, and which of them is right. A tie is not right.
void add_example(std::span<const double> nll, size_t answer, LossSums& sums) {
  // The log-sum-exp of −nll, from the lowest nll up: no exponential is above 1.
  const double lowest = *std::min_element(nll.begin(), nll.end());
  double likelihoods = 0;
  for (const double choice : nll) likelihoods += functions::exp(lowest - choice);
  sums["choices_nll"] += nll[answer] - lowest + functions::log(likelihoods);
  ++sums["choices"];
  // Every other choice has to be less likely.
  bool right = true;
  for (size_t c = 0; c < nll.size(); ++c) right = right && (c == answer || nll[answer] < nll[c]);
  sums["choices_right"] += right;
}

double summed_nll(const ScoredBatch& batch, const ScoredDocument& document) {
  double sum = 0;
  for (size_t i = document.begin; i < document.end; ++i) sum += batch.nll[i];
  return sum;
}

void add_choices(const ScoredBatch& batch, LossSums& sums) {
  const auto& documents = batch.documents;
  for (size_t begin = 0, end = 0; begin < documents.size(); begin = end) {
    end = begin + 1;
    if (documents[begin].range.choice < 0) continue;
    while (end < documents.size() && documents[end].range.choice > 0) ++end;  // choice 0 is the next example's first
    size_t answer = begin;
    while (answer < end && !documents[answer].range.answer) ++answer;
    TS_CHECK(documents[begin].range.choice == 0 && answer < end,
             "an example of {} choices has lost its first or its answer", end - begin);
    std::vector<double> nll;
    for (size_t c = begin; c < end; ++c) nll.push_back(summed_nll(batch, documents[c]));
    add_example(nll, answer - begin, sums);
  }
}

}  // namespace

Metric choice_metric() {
  return {.name = "choices",
          .sums = {{"choices_nll", SumKind::number}, {"choices", SumKind::count}, {"choices_right", SumKind::count}},
          .count = {"choices", "choices", Told::results},
          .figures = {{"accuracy", "choices right", "choices_right", Form::share, Told::outcome}},
          .add = add_choices};
}

}  // namespace tessera
