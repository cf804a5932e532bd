#pragma once
// Batches whose scores a test makes up, without a model.

#include <gtest/gtest.h>

#include <utility>

#include "score/batch_loss.h"
#include "score/metrics/metric.h"

namespace tessera::test {

/// Documents one behind the other in one row, each of three tokens of which the last is scored, with label 7.
inline PackedBatch scored_documents(const std::vector<TokenRange>& kinds) {
  PackedBatch batch;
  batch.rows = 1;
  for (TokenRange range : kinds) {
    range.begin = batch.sequence_length;
    range.end = batch.sequence_length += 3;
    batch.documents.push_back(range);
    batch.labels.insert(batch.labels.end(), {-1, 7, -1});
  }
  return batch;
}

/// A document, an example of two choices whose second is right, and one of three whose first is.
inline PackedBatch one_of_each() {
  return scored_documents(
      {{0, 0}, {0, 0, 0, false}, {0, 0, 1, true}, {0, 0, 0, true}, {0, 0, 1, false}, {0, 0, 2, false}});
}

/// Sums of such a batch, each token scored as the seed says, behind `before`.
inline LossSums some_sums(int seed, LossSums before = {}) {
  const PackedBatch batch = one_of_each();
  const ScoredRows scored = scored_rows(batch);
  std::vector<double> nll;
  std::vector<int32_t> best = scored.labels;
  for (size_t i = 0; i < scored.rows.size(); ++i) nll.push_back(0.25 + static_cast<double>((i * 7 + seed * 5) % 11));
  best[static_cast<size_t>(seed) % best.size()] = -1;
  return sum_up(batch, scored, ConstView(nll.data(), {static_cast<int64_t>(nll.size())}, DType::f64), best,
                std::move(before));
}

inline void expect_same_sums(const LossSums& a, const LossSums& b) {
  for (const SumSpec& spec : sum_specs()) EXPECT_EQ(a[spec.name], b[spec.name]) << spec.name;
}

}  // namespace tessera::test
