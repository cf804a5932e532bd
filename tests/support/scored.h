#pragma once
// Batches whose scores a test makes up, without a model.

#include "data/packed_dataset.h"

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

}  // namespace tessera::test
