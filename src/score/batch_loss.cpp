// A pass leaves two numbers for each scored row, the loss of its label and its likeliest token. All metrics are made
// from these on the host, in the rows' order and in f64.

#include "score/batch_loss.h"

#include "core/device/memory.h"
#include "core/error.h"
#include "score/metrics/metric.h"

namespace tessera {
namespace {

std::vector<ScoredDocument> documents_of(const PackedBatch& batch, const ScoredRows& scored) {
  std::vector<ScoredDocument> documents;
  size_t i = 0;
  for (const TokenRange& range : batch.documents) {
    // Rows and documents both ascend: each document takes the rows up to its end.
    const size_t begin = i;
    while (i < scored.rows.size() && scored.rows[i] < range.end) ++i;
    documents.push_back({range, begin, i, range.choice < 0 || range.answer});
  }
  TS_CHECK(i == scored.rows.size(), "{} scored rows lie behind the last document", scored.rows.size() - i);
  return documents;
}

}  // namespace

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

LossSums sum_up(const PackedBatch& batch, const ScoredRows& scored, const ConstView& nll, const ConstView& best,
                LossSums sums) {
  const OnHost row_nll(nll), row_best(best);
  std::vector<double> nats(scored.rows.size());
  for (size_t i = 0; i < nats.size(); ++i) nats[i] = element(row_nll.view(), static_cast<int64_t>(i));
  const ScoredBatch in{batch, scored.rows, scored.labels, nats, row_best.as<int32_t>(), documents_of(batch, scored)};
  for (const Metric& metric : metrics()) metric.add(in, sums);
  return sums;
}

}  // namespace tessera
