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

}  // namespace tessera::cpu
