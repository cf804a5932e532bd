#pragma once
// A sum of independent numbers, formed on all threads and added in order: its bits do not depend on the threads.

#include "kernels/cpu/parallel.h"

namespace tessera::cpu {

inline int64_t ordered_sum_bytes(int64_t count) { return count * static_cast<int64_t>(sizeof(double)); }

/// `sum` and then f(0), f(1), ... f(count − 1), added one after the other in f64. Takes ordered_sum_bytes of scratch.
template <class F> double ordered_sum(const Context& ctx, double sum, int64_t count, int64_t elements_per_item, F&& f) {
  if (count == 0) return sum;
  const auto scope = ctx.scratch.scope();
  const auto parts = ctx.scratch.allocate({count}, DType::f64).as<double>();
  // Each f(i) has a place of its own, and only then are they added, by one thread in the order of i.
  parallel_for(ctx, count, elements_per_item, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) parts[i] = f(i);
  });
  for (const double part : parts) sum += part;
  return sum;
}

}  // namespace tessera::cpu
