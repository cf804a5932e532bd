// Scored tokens: their negative log-likelihood, and how many of them the model finds most likely.

#include "score/metrics/metric.h"

namespace tessera {
namespace {

void add_tokens(const ScoredBatch& batch, LossSums& sums) {
  double nll =
      sums["nll"];  // goes on from earlier batches: one chain over the rows, however they were cut into batches
  int64_t scored = 0, correct = 0;
  for (const ScoredDocument& document : batch.documents) {
    // Of an example's choices the right one alone: wrong words are scored for their own metric.
    if (!document.counts) continue;
    for (size_t i = document.begin; i < document.end; ++i) {
      nll += batch.nll[i];
      ++scored;
      correct += batch.best[i] == batch.labels[i];
    }
  }
  sums["nll"] = nll;
  sums["scored"] += static_cast<double>(scored);
  sums["correct"] += static_cast<double>(correct);
}

}  // namespace

Metric token_metric() {
  return {.name = "tokens",
          .sums = {{"nll", SumKind::number}, {"scored", SumKind::count}, {"correct", SumKind::count}},
          .count = {"scored", "tokens", Told::evaluations},
          .figures = {{"perplexity", "perplexity", "nll", Form::exp_mean, Told::evaluations},
                      {"token_accuracy", "tokens right", "correct", Form::share, Told::results}},
          .add = add_tokens};
}

}  // namespace tessera
