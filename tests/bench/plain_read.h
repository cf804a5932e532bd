#pragma once
// What memory delivers when it is read and nothing else is done.

#include "bench/harness.h"
#include "core/tensor.h"

namespace tessera::bench {

/// A sum over the memory (f32), by all threads.
inline Timing read_plainly(const Tensor& memory, int threads) {
  const auto words = memory.as<float>();
  const auto* p = reinterpret_cast<const uint64_t*>(words.data());
  const auto count = static_cast<int64_t>(words.size() / 2);
  volatile uint64_t sink = 0;
  return measure([&] {
    uint64_t sum = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += p[i];
    sink = sum;
  });
}

}  // namespace tessera::bench
