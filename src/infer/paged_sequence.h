#pragma once
// One sequence by itself over pages, pass by pass.

#include <vector>

#include "infer/batch_plan.h"
#include "infer/paged_context.h"
#include "model/decoder.h"

namespace tessera {

/// How long a sequence becomes, and how it is fed.
struct SequenceLengths {
  int64_t new_tokens = 1;  // of which all but the last are fed
  int64_t step_tokens;     // of the prompt that a pass takes; behind it a pass takes one new token
};

/// The engine's schedule, plan of a step and attention, of a batch of one request. What is done with logits is the
/// caller's.
class PagedSequence {
 public:
  /// @param prompt  at least one token
  /// @param pages   bundles_of at least; they outlive it, and sequences may have them one after another
  PagedSequence(const DecoderModel&, std::vector<int32_t> prompt, const SequenceLengths&, const KeyValuePages& pages,
                int threads);
  PagedSequence(const PagedSequence&) = delete;

  /// Bundles of pages for so many tokens of a prompt and new ones behind it.
  static int64_t bundles_of(int64_t prompt, int64_t new_tokens, int64_t page_tokens);

  /// The sequence goes on with this token. Behind the pass that ends the prompt, and behind each one that follows.
  void append(int32_t id);
  /// Which rows of a pass logits are formed of.
  enum class Rows { last, all };
  /// The next pass. @return logits [1 or rows of the pass, vocab], from the context's scratch
  TensorView pass(const Context&, const PoolRead&, BoundAdapter*, Rows);

 private:
  const DecoderModel& decoder_;
  const KeyValuePages& pages_;
  std::vector<Request> requests_;
  BatchPlan batch_;
  PlanShape shape_;
  Schedule schedule_;
  std::vector<std::vector<int32_t>> tails_;
};

}  // namespace tessera
