#pragma once
// Weights in blocks of 128, which share one Philox counter: how work on them is handed to threads.

#include <algorithm>
#include <atomic>

#include "core/error.h"
#include "kernels/cpu/parallel.h"
#include "kernels/votes.h"

namespace tessera::cpu {

constexpr int64_t kSignBlock = 128;  // weights, as in core/direction.h

/// Calls work(begin, end) on ranges of weights that cover [first, first + count), cut between blocks.
/// @throws InternalError when a thread does not round as votes.h says
template <class Work>
void for_sign_blocks(const Context& ctx, int64_t first, int64_t count, int64_t work_per_weight, Work&& work) {
  const int64_t from = first / kSignBlock, blocks = (first + count + kSignBlock - 1) / kSignBlock - from;
  std::atomic<bool> is_exact = true;
  parallel_for(ctx, blocks, kSignBlock * work_per_weight, [&](int64_t begin, int64_t end) {
    // Asked on every thread: the rounding mode is in a register of its own, which a library may have set. A thread may
    // not throw here, so that the fault is told behind the loop.
    if (has_exact_rounding())
      work(std::max(first, (from + begin) * kSignBlock), std::min(first + count, (from + end) * kSignBlock));
    else
      is_exact = false;
  });
  TS_CHECK(is_exact, "a thread flushes denormals to zero or does not round to nearest");
}

}  // namespace tessera::cpu
