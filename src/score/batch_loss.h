#pragma once
// What a packed batch is scored on, and its sums.

#include <vector>

#include "data/packed_dataset.h"
#include "kernels/attention.h"
#include "score/loss_sums.h"

namespace tessera {

/// Rows of a batch that are scored, and the labels there.
struct ScoredRows {
  std::vector<int32_t> rows, labels;
};
ScoredRows scored_rows(const PackedBatch&);

/// One segment a document: documents never see each other.
std::vector<AttentionSegment> segments_of(const PackedBatch&);

/// The sums with what every metric adds for the batch: row by row, in f64, so that the same rows in other batches give
/// the same bits.
/// @param nll, best  one entry per scored row, where the pass left them; they are brought to the host
/// @param sums       of the batches in front of this one
LossSums sum_up(const PackedBatch&, const ScoredRows&, const ConstView& nll, const ConstView& best, LossSums sums = {});

}  // namespace tessera
