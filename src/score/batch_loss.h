#pragma once
// What a packed batch is scored on, and its sums.

#include <string_view>
#include <vector>

#include "data/packed_dataset.h"
#include "kernels/attention.h"

namespace tessera {

/// What training lowers. tokens: the negative log-likelihood of each scored token. choices: of each example of label words the right choice's,
///   nll_answer + log Σ_c exp(−nll_c),   nll_c the sum over the tokens of choice c
enum class Objective { tokens, choices };

/// @param name  train.objective
Objective objective_of(std::string_view name);

/// A piece with scored tokens of a document that was cut into several such: whether each of them is the arg max.
struct CutCompletion {
  int64_t document;
  int32_t pieces;  // of the document, with scored tokens
  bool exact;
};

/// Sums over the scored tokens, completions and choices of one or more batches; never means of means. A completion is a document that begins
/// with a prompt and has scored tokens; it is exact when each of these is the arg max: greedy decoding
/// from the prompt would produce it. A mean of nothing is NaN. Of an example's choices only the right one counts among tokens and completions, so that these are
/// what they would be on the same data as prompts and completions.
struct LossSums {
  double nll = 0;
  int64_t scored = 0, correct = 0;  // tokens; correct: the arg max is the label
  int64_t completions = 0, exact = 0;
  double choices_nll = 0;
  int64_t choices = 0, choices_right = 0;  // examples; right: the answer's nll is lower than that of every other choice
  std::vector<CutCompletion> cut{};        // not yet among the completions: other batches may hold the other pieces

  /// Calls v(name, pointer to member) for every member: what is summed over ranks and kept in checkpoints.
  template <class Visitor> static void visit(Visitor&& v) {
    v("nll", &LossSums::nll);
    v("scored", &LossSums::scored);
    v("correct", &LossSums::correct);
    v("completions", &LossSums::completions);
    v("exact", &LossSums::exact);
    v("choices_nll", &LossSums::choices_nll);
    v("choices", &LossSums::choices);
    v("choices_right", &LossSums::choices_right);
  }
  LossSums& operator+=(const LossSums& o) {
    visit([&](const char*, auto member) { this->*member += o.*member; });
    cut.insert(cut.end(), o.cut.begin(), o.cut.end());
    return *this;
  }
  /// Counts the documents in `cut` all of whose pieces are there, each once, and clears it.
  void count_cut_completions();
  /// The loss that training lowers, as a sum, and what it is divided by: scored tokens, or examples.
  double objective_sum(Objective objective) const { return objective == Objective::choices ? choices_nll : nll; }
  int64_t objective_count(Objective objective) const { return objective == Objective::choices ? choices : scored; }
  double mean_loss(Objective objective) const { return share(objective_sum(objective), objective_count(objective)); }

  double mean_nll() const { return mean_loss(Objective::tokens); }
  double token_accuracy() const { return share(static_cast<double>(correct), scored); }
  double exact_match() const { return share(static_cast<double>(exact), completions); }
  double accuracy() const { return share(static_cast<double>(choices_right), choices); }

 private:
  static double share(double part, int64_t whole) { return part / static_cast<double>(whole); }
};

/// Rows of a batch that are scored, and the labels there.
struct ScoredRows {
  std::vector<int32_t> rows, labels;
};
ScoredRows scored_rows(const PackedBatch&);

/// One segment a document: documents never see each other.
std::vector<AttentionSegment> segments_of(const PackedBatch&);

/// @param nll, best  one entry per scored row, where the pass left them; they are brought to the host
LossSums sum_up(const PackedBatch&, const ScoredRows&, const ConstView& nll, const ConstView& best);

}  // namespace tessera
