#include "kernels/read_rate.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kWords = int64_t{16} << 20;  // more than caches hold
constexpr int64_t kLanes = 8;                  // sums that do not wait for each other

uint64_t sum_of(const uint64_t* words, int64_t count) {
  uint64_t lanes[kLanes] = {};
  for (int64_t i = 0; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += words[i + lane];
  uint64_t sum = 0;
  for (const uint64_t lane : lanes) sum += lane;
  return sum;
}

/// Calls f(begin, end) of each thread's part.
template <class F> void on_parts(int threads, F&& f) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) f(kWords * t / threads, kWords * (t + 1) / threads);
}

}  // namespace

double read_rate(const Context& ctx, double seconds) {
  const auto words = std::make_unique_for_overwrite<uint64_t[]>(static_cast<size_t>(kWords));
  // Each thread writes what it will read: pages then lie with it.
  on_parts(ctx.threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) words[static_cast<size_t>(i)] = static_cast<uint64_t>(i);
  });
  std::atomic<uint64_t> sum = 0;  // so that reading is not left out
  const auto read = [&] {
    on_parts(ctx.threads, [&](int64_t begin, int64_t end) { sum += sum_of(words.get() + begin, end - begin); });
  };
  read();
  const auto begin = Clock::now();
  int64_t count = 0;
  double passed = 0;
  while (count == 0 || passed < seconds) {
    read();
    ++count;
    passed = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return static_cast<double>(count * kWords) * sizeof(uint64_t) / passed;
}

}  // namespace tessera
