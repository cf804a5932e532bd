#include "train/batch_loss.h"

namespace tessera {

ScoredRows scored_rows(const PackedBatch& batch) {
  ScoredRows scored;
  for (size_t t = 0; t < batch.labels.size(); ++t) {
    if (batch.labels[t] < 0) continue;
    scored.rows.push_back(static_cast<int32_t>(t));
    scored.labels.push_back(batch.labels[t]);
  }
  return scored;
}

std::vector<AttentionSegment> segments_of(const PackedBatch& batch) {
  std::vector<AttentionSegment> segments;
  for (const TokenRange& d : batch.documents) segments.push_back({d.begin, d.end, d.begin, d.end});
  return segments;
}

LossSums sum_up(const PackedBatch& batch, const ScoredRows& scored, const ConstView& nll,
                std::span<const int32_t> best) {
  LossSums sums;
  for (size_t i = 0; i < scored.rows.size(); ++i) sums.nll += element(nll, static_cast<int64_t>(i));
  sums.scored = static_cast<int64_t>(scored.rows.size());
  size_t i = 0;
  for (const TokenRange& document : batch.documents) {
    bool any = false, all = true;
    while (i < scored.rows.size() && scored.rows[i] < document.begin) ++i;
    for (; i < scored.rows.size() && scored.rows[i] < document.end; ++i) {
      const bool hit = best[i] == scored.labels[i];
      sums.correct += hit;
      any = true;
      all = all && hit;
    }
    const bool completion = any && batch.labels[document.begin] < 0;
    sums.completions += completion;
    sums.exact += completion && all;
  }
  return sums;
}

}  // namespace tessera
