#pragma once
// Sharing out independent items over the threads of a context.

#include <algorithm>
#include <cstdint>

#include "kernels/context.h"

namespace tessera::cpu {

/// Below this many elements a team of threads costs more than it saves (waking one takes some microseconds).
constexpr int64_t kSerialElements = 16 * 1024;

/// Calls f(begin, end) on ranges that cover [0, count), one a thread, or on this thread when the work is small. f must
/// treat items independently, so that the cut does not show in the result. f may not throw.
template <class F> void parallel_for(const Context& ctx, int64_t count, int64_t elements_per_item, F&& f) {
  const int64_t threads = count * elements_per_item < kSerialElements ? 1 : std::min<int64_t>(ctx.threads, count);
  if (threads <= 1) {
    f(int64_t{0}, count);
    return;
  }
  // One iteration a thread: the ranges are cut here, so that each is contiguous.
#pragma omp parallel for num_threads(static_cast <int>(threads)) schedule(static)
  for (int64_t t = 0; t < threads; ++t) f(count * t / threads, count * (t + 1) / threads);
}

/// Calls f(begin, end) on ranges of columns that cover [0, cols), one a thread, cut at cache lines of f32: for sums
/// over rows, each of which one thread adds in the rows' order, without scratch.
template <class F> void for_columns(const Context& ctx, int64_t cols, int64_t rows, F&& f) {
  constexpr int64_t kStripe = 16;
  parallel_for(ctx, (cols + kStripe - 1) / kStripe, kStripe * rows,
               [&](int64_t first, int64_t last) { f(first * kStripe, std::min(last * kStripe, cols)); });
}

}  // namespace tessera::cpu
