#include "score/batch_loss.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {
namespace {

/// Adds one example: the summed nll of each choice, and which of them is right. A tie is not right.
void add_example(std::span<const double> nll, size_t answer, LossSums& sums) {
  const double lowest = *std::min_element(nll.begin(), nll.end());
  double likelihoods = 0;
  for (const double choice : nll) likelihoods += std::exp(lowest - choice);
  sums.choices_nll += nll[answer] - lowest + std::log(likelihoods);
  ++sums.choices;
  bool right = true;
  for (size_t c = 0; c < nll.size(); ++c) right = right && (c == answer || nll[answer] < nll[c]);
  sums.choices_right += right;
}

/// @param nll  summed over each document's scored tokens
void add_choices(const PackedBatch& batch, std::span<const double> nll, LossSums& sums) {
  const auto& documents = batch.documents;
  for (size_t begin = 0, end = 0; begin < documents.size(); begin = end) {
    end = begin + 1;
    if (documents[begin].choice < 0) continue;
    while (end < documents.size() && documents[end].choice > 0) ++end;  // choice 0 is the next example's first
    size_t answer = begin;
    while (answer < end && !documents[answer].answer) ++answer;
    TS_CHECK(documents[begin].choice == 0 && answer < end, "an example of {} choices has lost its first or its answer",
             end - begin);
    add_example(nll.subspan(begin, end - begin), answer - begin, sums);
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
    if (document.pieces < piece.pieces) continue;
    ++completions;
    exact += document.exact;
  }
  cut.clear();
}

Objective objective_of(std::string_view name) {
  TS_CHECK(name == "tokens" || name == "choices", "objective \"{}\"", name);
  return name == "choices" ? Objective::choices : Objective::tokens;
}

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

LossSums sum_up(const PackedBatch& batch, const ScoredRows& scored, const ConstView& row_nll,
                const ConstView& row_best) {
  const OnHost nll(row_nll), arg_max(row_best);
  const auto best = arg_max.as<int32_t>();
  LossSums sums;
  std::vector<double> document_nll(batch.documents.size());
  size_t i = 0;
  for (size_t d = 0; d < batch.documents.size(); ++d) {
    const TokenRange& document = batch.documents[d];
    const bool counts = document.choice < 0 || document.answer;
    bool any = false, all = true;
    for (; i < scored.rows.size() && scored.rows[i] < document.end; ++i) {
      const double term = element(nll.view(), static_cast<int64_t>(i));
      document_nll[d] += term;
      if (!counts) continue;
      const bool hit = best[i] == scored.labels[i];
      sums.nll += term;
      ++sums.scored;
      sums.correct += hit;
      any = true;
      all = all && hit;
    }
    if (!any || !document.has_prompt.value_or(batch.labels[document.begin] < 0)) continue;
    if (document.pieces > 1) {
      sums.cut.push_back({document.document, document.pieces, all});
      continue;
    }
    ++sums.completions;
    sums.exact += all;
  }
  TS_CHECK(i == scored.rows.size(), "{} scored rows lie behind the last document", scored.rows.size() - i);
  add_choices(batch, document_nll, sums);
  return sums;
}

}  // namespace tessera
