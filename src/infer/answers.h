#pragma once
// The continuations of a batch as they grow, token by token.

#include <map>
#include <span>
#include <vector>

#include "infer/batch_plan.h"
#include "infer/beams.h"
#include "infer/logprobs.h"
#include "infer/sampler.h"
#include "infer/stop_text.h"

namespace tessera {

class Answers {
 public:
  /// @param schedule   of the plan; told of each token and each end
  /// @param tokenizer  null: no texts and no stop strings
  Answers(std::span<const Request>, const BatchPlan&, Schedule&, const Tokenizer*, int64_t vocab,
          bool cumulative_logprobs);

  /// New tokens of each tail, by its number in the schedule.
  std::span<const std::vector<int32_t>> tails() const { return tails_; }
  bool wants_logprobs(int32_t sequence) const;

  /// Whether the sequence is searched by beams.
  bool is_search(int32_t sequence) const { return request_of(sequence).beams.width > 1; }

  /// Chooses the sequence's next token, and ends it where it ends.
  /// @param normaliser  of the row; null where nobody wants logprobs
  void extend(int32_t sequence, std::span<const float> logits, const RowNormaliser* normaliser);
  /// Takes the search by one token further, and ends it where it is done.
  /// @param rows  behind each of the sequence's tails
  void extend_search(int32_t sequence, std::span<const BeamRow> rows);
  /// Ends the request; the others go on.
  void fail(int32_t request, RequestError);
  /// The request asked for no continuation, and its prompt is computed.
  void end_prompt(int32_t request);

  /// Requests that have ended since the last call.
  std::vector<int32_t> take_ended() { return std::exchange(ended_, {}); }
  /// What the request is answered. Once.
  RequestResult take(int32_t request);
  int64_t generated() const { return generated_; }

 private:
  struct Sample {
    Output output;
    ContinuationText text;
  };
  void choose(int32_t sequence, std::span<const float> logits, const RowNormaliser* normaliser);
  void search(int32_t sequence, std::span<const BeamRow> rows);
  void end(int32_t sequence, Finish);
  const Request& request_of(int32_t sequence) const {
    return requests_[static_cast<size_t>(schedule_.request_of(sequence))];
  }

  std::span<const Request> requests_;
  const BatchPlan& plan_;
  Schedule& schedule_;
  TokenChooser chooser_;
  BeamScratch beam_scratch_;
  std::map<int32_t, BeamSearch> searches_;  // of sequences that have begun and not ended
  std::vector<std::vector<int32_t>> tails_;
  std::vector<Sample> samples_;         // by sequence
  std::vector<int32_t> left_;           // of each request: samples that have not ended
  std::vector<RequestResult> results_;  // of each request
  std::vector<int32_t> ended_;
  int64_t generated_ = 0;
  bool cumulative_logprobs_;
};

}  // namespace tessera
