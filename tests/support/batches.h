#pragma once
// A batch small enough for finite differences.

#include "data/packed_dataset.h"

namespace tessera::test {

/// Two rows: documents of 4 and 5 tokens; a document of 6 and padding. Some tokens are not scored.
inline PackedBatch packed_batch() {
  PackedBatch batch;
  batch.rows = 2;
  batch.sequence_length = 9;
  batch.documents = {{0, 4}, {4, 9}, {9, 15}};
  batch.ids = {3, 14, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 0, 0, 0};
  batch.labels = {14, 1, 5, -1, -1, 6, 5, 3, -1, 8, 9, -1, 9, 3, -1, -1, -1, -1};
  batch.positions = {0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 0, 0, 0};
  for (int64_t t = 0; t < 18; ++t) batch.draw_index.push_back(100 + t);
  return batch;
}

}  // namespace tessera::test
