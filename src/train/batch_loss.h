#pragma once
// What a packed batch is scored on, and its sums.

#include <vector>

#include "data/packed_dataset.h"
#include "kernels/attention.h"

namespace tessera {

/// Sums over the scored tokens and completions of one or more batches; never means of means. A completion is a document that begins
/// with tokens that are not scored (a prompt) and has scored ones; it is exact when each of these is the arg max: greedy decoding
/// from the prompt would produce it.
struct LossSums {
  double nll = 0;
  int64_t scored = 0, correct = 0;  // tokens; correct: the arg max is the label
  int64_t completions = 0, exact = 0;
  LossSums& operator+=(const LossSums& o) {
    nll += o.nll;
    scored += o.scored;
    correct += o.correct;
    completions += o.completions;
    exact += o.exact;
    return *this;
  }
  double mean_nll() const { return share(nll, scored); }
  double token_accuracy() const { return share(static_cast<double>(correct), scored); }
  double exact_match() const { return share(static_cast<double>(exact), completions); }

 private:
  static double share(double part, int64_t whole) { return whole ? part / static_cast<double>(whole) : 0; }
};

/// Rows of a batch that are scored, and the labels there.
struct ScoredRows {
  std::vector<int32_t> rows, labels;
};
ScoredRows scored_rows(const PackedBatch&);

/// One segment a document: documents never see each other.
std::vector<AttentionSegment> segments_of(const PackedBatch&);

/// @param nll, best  one entry per scored row
LossSums sum_up(const PackedBatch&, const ScoredRows&, const ConstView& nll, std::span<const int32_t> best);

}  // namespace tessera
