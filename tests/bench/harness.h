#pragma once
// The benchmarks' harness: warm up, take many samples, report the median and the spread as one JSON line a case, with
// the machine and the threads, so that results can be kept and compared.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/error.h"
#include "core/random.h"
#include "kernels/context.h"

namespace tessera::bench {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Processor time of all threads of this process. On a machine that others use it says more than the clock.
inline double processor_seconds_now() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Timing {
  double median, best, spread;  // seconds a call; spread: distance between the quartiles
  double processor;             // median seconds of processor time a call; 0 where it was not taken
  int samples;
};

/// Of seconds a call and processor seconds of the same calls, or none.
inline Timing timing_of(std::vector<double> seconds, std::vector<double> processor = {}) {
  std::sort(seconds.begin(), seconds.end());
  std::sort(processor.begin(), processor.end());
  const size_t n = seconds.size();
  return {seconds[n / 2], seconds[0], seconds[n * 3 / 4] - seconds[n / 4],
          processor.empty() ? 0 : processor[processor.size() / 2], static_cast<int>(n)};
}

/// Calls `work` for about `seconds`, in samples of at least a millisecond, after two calls to warm up.
template <class Work> Timing measure(Work&& work, double seconds = 0.5) {
  work();
  const double start = seconds_now();
  work();
  const int calls = std::max(1, static_cast<int>(1e-3 / std::max(1e-9, seconds_now() - start)));
  std::vector<double> samples, processor;
  for (const double end = seconds_now() + seconds; samples.size() < 5 || seconds_now() < end;) {
    const double begin = seconds_now(), processor_begin = processor_seconds_now();
    for (int i = 0; i < calls; ++i) work();
    samples.push_back((seconds_now() - begin) / calls);
    processor.push_back((processor_seconds_now() - processor_begin) / calls);
  }
  return timing_of(std::move(samples), std::move(processor));
}

/// The processor's name as the kernel gives it, "unknown" elsewhere.
inline std::string machine() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

/// Prints {"bench", "case", "machine", "threads", "median_us", "best_us", "spread_us", "processor_us" (where
/// it was taken), "samples", "rate", "unit"}.
/// work: what one call does, in 1e9 units (GFLOP, GB) of `unit` a second.
inline void report(std::string_view bench, std::string_view what, int threads, const Timing& t, double work,
                   std::string_view unit) {
  static const std::string kMachine = machine();
  const std::string processor = t.processor > 0 ? fmt::format(R"("processor_us": {:.2f}, )", t.processor * 1e6) : "";
  fmt::print(
      R"({{"bench": "{}", "case": "{}", "machine": "{}", "threads": {}, "median_us": {:.2f}, "best_us": {:.2f}, )"
      R"("spread_us": {:.2f}, {}"samples": {}, "rate": {:.2f}, "unit": "{}"}})"
      "\n",
      bench, what, kMachine, threads, t.median * 1e6, t.best * 1e6, t.spread * 1e6, processor, t.samples,
      work / t.median, unit);
}

/// Threads to use: the first argument, else 1.
inline int threads_from(int argc, char** argv) { return argc > 1 ? std::max(1, std::atoi(argv[1])) : 1; }

/// A tensor of numbers drawn evenly from [-1, 1).
inline Tensor random_tensor(Shape shape, uint64_t seed) {
  Tensor tensor(shape, DType::f32);
  const RandomStream random(seed, 0);
  uint64_t i = 0;
  for (float& x : tensor.as<float>()) x = random.uniform(i++) * 2 - 1;
  return tensor;
}

/// config.json of SmolLM2-135M, whose weights are drawn.
inline std::string smollm2_config(const std::string& dtype) {
  return R"({"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
  "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "rms_norm_eps": 1e-05,
  "rope_theta": 100000, "max_position_embeddings": 8192, "tie_word_embeddings": true, "torch_dtype": ")" +
         dtype + "\"}";
}

}  // namespace tessera::bench
