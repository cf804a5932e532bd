#pragma once
// Search by beams: which continuations are followed, and which are the best. The model is run by others.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/logit_steps.h"
#include "infer/logprobs.h"
#include "infer/request.h"
#include "infer/stop_text.h"

namespace tessera {

/// What the model says behind a beam: a row of logits, of which normalise_rows made the normaliser.
struct BeamRow {
  std::span<const float> logits;  // [vocab]
  RowNormaliser normaliser;
};

/// A beam of the next step: the beam that it continues, and with which token.
struct BeamMove {
  int64_t parent;
  int32_t token;
  friend bool operator==(const BeamMove&, const BeamMove&) = default;
};

/// What a step of a search works in; enough for any number of searches, one after another.
struct BeamScratch {
  explicit BeamScratch(int64_t vocab) : steps(vocab), values(static_cast<size_t>(vocab)) {}
  LogitSteps steps;
  std::vector<double> values;  // [vocab], of one beam
};

/// The search of one request. There is one beam, the prompt, until the first advance(); then at most `width`.
/// Each step ranks all continuations of all beams by Σ logprob (the lower beam, then the lower token first on a tie)
/// and keeps the first max(2, 1 + stop ids) · width. Of these, the first `width` that end nothing go on, and those that
/// end (with a stop id or a stop string) are hypotheses if they are among the first `width` of all. At the last step
/// the first `width` all are.
///   score of a hypothesis = Σ logprob / len^length_penalty, len counts new tokens, a stop token included
/// The `width` best hypotheses stay. The search is done when there are `width` of them and
///   early_stopping yes     (nothing else)
///   early_stopping no      Σ logprob / len^length_penalty of the best beam is not above the worst hypothesis
///   early_stopping never   the same, with the largest length in place of len if length_penalty > 0
/// or when no beam is left. This is what transformers does since its release 4.50.
/// Where the request changes logits (infer/logit_steps.h), the changes are made to the logprobs, as there.
class BeamSearch {
 public:
  /// @param most_tokens  new tokens that max_tokens and the model's positions permit, at least 1
  /// @param text         of a continuation without tokens; what it refers to and the request outlive the search
  BeamSearch(const Request&, BeamScratch&, int64_t most_tokens, ContinuationText text = {});

  /// @param rows  one for each beam, in the order of the last moves
  /// @returns the beams of the next step; empty when the search is done
  /// @throws UserError when a logit is not finite
  std::vector<BeamMove> advance(std::span<const BeamRow> rows);

  bool done() const { return beams_.empty(); }
  /// Tokens of a beam of the next step.
  std::span<const int32_t> ids(size_t beam) const { return beams_.at(beam).ids; }

  /// The n best hypotheses, the best first (the earlier one on a tie); fewer where the request allowed fewer.
  std::vector<Output> outputs() const;

 private:
  struct Beam {
    std::vector<int32_t> ids;
    double sum = 0;         // of logprobs, changed as the request asks for
    double cumulative = 0;  // of the model's
    std::vector<TokenLogprobs> logprobs;
    ContinuationText text;
  };
  struct Candidate {
    double sum;
    BeamMove move;
  };
  struct Hypothesis {
    double score;
    Beam beam;
    Finish finish;
  };

  std::vector<Candidate> rank(std::span<const BeamRow> rows);
  std::span<const double> find_values(const BeamRow&, const Beam&);
  Beam extended(const Candidate&, const BeamRow&) const;
  void finish(Beam, Finish);
  bool is_stop_id(int32_t token) const;
  bool can_improve() const;

  const Request& request_;
  BeamScratch& scratch_;
  size_t width_;
  int64_t most_tokens_, tokens_ = 0;  // of the beams: all have the same number
  std::vector<Beam> beams_;           // the likeliest first
  std::vector<Hypothesis> finished_;  // the best first
};

}  // namespace tessera
