#pragma once
// Log-probabilities of the tokens of prompts. A row that several requests ask about is formed once.

#include <map>
#include <span>
#include <vector>

#include "infer/batch_plan.h"
#include "infer/logprobs.h"
#include "infer/step_plan.h"
#include "model/decoder.h"

namespace tessera {

/// Rows of a prompt are scored under the token behind each; rows that nobody asks about form no logits.
class PromptScores {
 public:
  PromptScores(std::span<const Request>, const BatchPlan&);

  /// Scores the step's rows that are asked about. @param hidden  of all rows of the step
  void score(const Pass&, const DecoderModel&, ConstView hidden, std::span<const Work>, const StepPlan&);
  /// Puts what the request asked for into its result; where a row was not finite, an error.
  void take(int32_t request, RequestResult&) const;
  /// Rows that have been scored.
  int64_t scored() const { return scored_; }
  /// The most rows of logits that a step holds at once beside those of the fused head.
  static constexpr int64_t kRowsAtOnce = 16;

 private:
  /// A token under the row in front of it.
  struct Scored {
    int32_t token = -1;
    float logprob = 0;
    bool is_greedy = false;
    std::vector<TokenLogprob> top{};
  };
  /// Of a node: its rows from position `from` on. The last one is followed by as many tokens as the node has branches.
  struct NodeRows {
    int32_t from = 0;
    int64_t top = -1;  // how many of the best are asked for
    std::vector<Scored> inner{};
    std::vector<Scored> last{};
  };
  struct Asked {
    bool scores, logprobs;
    int32_t first;  // number of the first token that is scored
  };
  struct Row {
    int32_t row;
    std::span<Scored> tokens;
    int64_t top;
  };
  Asked asked(const Request&) const;
  void note(const Request&, int32_t node, int32_t first);
  std::vector<Row> rows_of(std::span<const Work>, const StepPlan&);
  void score_fused(const Pass&, const DecoderModel&, ConstView hidden, std::span<const Row>);
  void score_rows(const Pass&, const DecoderModel&, ConstView hidden, std::span<const Row>);

  std::span<const Request> requests_;
  const BatchPlan& plan_;
  std::vector<int32_t> nodes_;  // of each request
  std::map<int32_t, NodeRows> rows_;
  int64_t scored_ = 0;
};

}  // namespace tessera
