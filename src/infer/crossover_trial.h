#pragma once
// How long attention takes in both forms on this machine: what decides whether a node's keys are attended to jointly.

#include "infer/crossover.h"
#include "kernels/context.h"

namespace tessera {

/// Attention whose forms are timed.
struct AttentionTrial {
  int64_t heads, kv_heads, head_dim, page_tokens;
  DType kv_dtype;  // f32, bf16, f16 or i8
  auto operator<=>(const AttentionTrial&) const = default;
};

/// The numbers of rows and of keys that are timed.
inline constexpr int64_t kTrialRows[] = {2, 4, 8, 16, 32, 64, 256};
inline constexpr int64_t kTrialKeys[] = {64, 128, 256, 512, 1024};

/// Both forms in turn over random keys, for each number of rows and keys; the quickest of up to three times. The query
/// heads of one key-value head, on one thread: the piece of work that threads take. Keys of some layers are read one
/// after the other, as in a pass. What would not end within `seconds` is left out, larger numbers of rows first.
/// Takes some MB beside the context's scratch meanwhile.
std::vector<TimedVisit> time_visits(const Context&, const AttentionTrial&, double seconds);

/// fit_crossover of times that are taken once a process for each trial and backend, in less than half a second.
const Crossover& measured_crossover(const Context&, const AttentionTrial&);

}  // namespace tessera
