#pragma once
// Reading tests/golden: see its README for names and layouts.

#include <cmath>
#include <vector>

#include "data/packed_dataset.h"
#include "io/safetensors.h"
#include "support/paths.h"

namespace tessera::test {

inline std::filesystem::path golden(const std::string& name) { return source_dir() / "tests" / "golden" / name; }

/// Batch of rows [B, T] of ids and HF-style labels (labels[t + 1] is what position t predicts; -100 is ignored), one
/// document a row unless `lengths` cuts the row.
inline PackedBatch batch_of(ConstView ids, ConstView labels, std::vector<int64_t> lengths = {}) {
  PackedBatch batch;
  batch.rows = ids.shape[0];
  batch.sequence_length = ids.shape[1];
  const int64_t T = batch.sequence_length;
  if (lengths.empty()) lengths = {T};
  for (int64_t b = 0; b < batch.rows; ++b) {
    int64_t begin = 0;
    for (const int64_t length : lengths) {
      batch.documents.push_back({b * T + begin, b * T + begin + length});
      for (int64_t t = begin; t < begin + length; ++t) {
        const bool last = t + 1 == begin + length;
        batch.ids.push_back(ids.row<int32_t>(b)[t]);
        batch.labels.push_back(last ? -1 : std::max(-1, labels.row<int32_t>(b)[t + 1]));
        batch.positions.push_back(static_cast<int32_t>(t - begin));
        batch.draw_index.push_back(b * T + t);
      }
      begin += length;
    }
  }
  return batch;
}

/// ||a − b|| / ||b||, any floating dtypes.
inline double relative_error(const ConstView& a, const ConstView& b) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < b.shape.count(); ++i) {
    difference += std::pow(element(a, i) - element(b, i), 2);
    norm += std::pow(element(b, i), 2);
  }
  return std::sqrt(difference) / std::max(std::sqrt(norm), 1e-30);
}

}  // namespace tessera::test
