// Completions: documents that begin with a prompt and have scored tokens. One is exact when each of these is the arg
// max: greedy decoding from the prompt would produce it. A document that was cut into pieces waits in `cut` until all
// of them are there.

#include <map>

#include "score/metrics/metric.h"

namespace tessera {
namespace {

bool is_exact(const ScoredBatch& batch, const ScoredDocument& document) {
  for (size_t i = document.begin; i < document.end; ++i)
    if (batch.best[i] != batch.labels[i]) return false;
  return true;
}

void add_completions(const ScoredBatch& batch, LossSums& sums) {
  for (const ScoredDocument& document : batch.documents) {
    const TokenRange& range = document.range;
    if (!document.counts || document.begin == document.end) continue;
    // Where it is not told, a label that is not scored in first place is a prompt's.
    if (!range.has_prompt.value_or(batch.batch.labels[range.begin] < 0)) continue;
    const bool exact = is_exact(batch, document);
    if (range.pieces > 1) {
      sums.cut.push_back({range.document, range.pieces, exact});
      continue;
    }
    ++sums["completions"];
    sums["exact"] += exact;
  }
}

}  // namespace

void LossSums::count_cut_completions() {
  struct Found {
    int32_t pieces = 0;
    bool exact = true;
  };
  std::map<int64_t, Found> found;
  for (const CutCompletion& piece : cut) {
    Found& document = found[piece.document];
    ++document.pieces;
    document.exact = document.exact && piece.exact;
    // The last piece to come completes the document, in whatever order they came.
    if (document.pieces < piece.pieces) continue;
    ++(*this)["completions"];
    (*this)["exact"] += document.exact;
  }
  cut.clear();
}

Metric completion_metric() {
  return {.name = "completions",
          .sums = {{"completions", SumKind::count}, {"exact", SumKind::count}},
          .count = {"completions", "completions", Told::results},
          .figures = {{"exact_match", "completions right", "exact", Form::share, Told::outcome}},
          .add = add_completions};
}

}  // namespace tessera
