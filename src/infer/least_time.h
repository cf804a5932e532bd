#pragma once
// How long a batch takes at least, by what a machine multiplies and reads at best: what its time is compared with.

#include "infer/engine.h"
#include "model/model.h"

namespace tessera {

/// What the machine does at best, a second; 0: not known.
struct MachineRates {
  double flop = 0, bytes = 0;
};

/// Work of a batch, from its plan and from what its requests became. With C prompt tokens computed once, N new tokens
/// of which F were fed (all but the last of each continuation), S tokens scored:
///
///   FLOP   (C + F) · Σ_linears (2 in·out + Σ_deltas 2 r (in + out)) + (N + S) · 2 V·D
///          + Σ_layers Σ_rows 4 keys · heads · head_dim
///   bytes  P · bytes of the linears + M · bytes of the head + bytes of keys and values that were read
///   P      passes: at least those of the longest request, ⌈prompt / step_tokens⌉ + its new tokens - 1, and at least
///          ⌈(C + F) / step_tokens⌉;  M: the most new tokens of one continuation
///
/// Keys are those that each of these rows sees. F and keys leave out samples that are drawn and not answered (best_of).
/// What is computed a second time, norms, sampling and planning do not count: the time is a lower bound.
class LeastTime {
 public:
  LeastTime(Model&, int64_t step_tokens);

  /// A request has ended.
  void add(const Request&, const RequestResult&);
  /// seconds = max(FLOP / rate, bytes / rate), by the plan and counts of the whole batch; 0 without rates.
  double seconds(const BatchPlan&, const EngineCounts&, const MachineRates&) const;
  /// About the same of a batch that is not computed yet, when every continuation becomes as long as it is expected to.
  double expected_seconds(const BatchPlan&, const MachineRates&) const;

 private:
  double keys_flop(int64_t begin, int64_t end) const;
  void add_tail(int64_t prompt, int64_t new_tokens);

  double linear_flop_ = 0, head_flop_ = 0;    // of a row
  double linear_bytes_ = 0, head_bytes_ = 0;  // of a pass
  std::vector<int64_t> windows_{};            // of each layer with attention; 0: sees all
  double key_flop_ = 0;                       // of a row, a layer and a key
  int64_t step_tokens_;
  double tails_flop_ = 0;  // of attention, of what was fed behind prompts
  int64_t fed_ = 0, longest_passes_ = 0, longest_tail_ = 0;
};

}  // namespace tessera
