// engine_bench MODEL [threads] [rounds]: batches of the inference engine, as whole runs of it. MODEL is a Hugging Face
// folder, whose weights are read as they are stored.
//
//   prefill N             one prompt of N tokens                              tokens of the prompt a second
//   decode B              B prompts of 32 tokens that share nothing           new tokens a second
//   decode B behind P     B prompts with P tokens in common and 32 of their own
// The time of `kNew` + 1 new tokens less that of one is decoding. Each case is measured as it is by default, with
// `deterministic = false`, and where prompts share something with `prefix = off`; in turn, and the medians of the
// rounds' own ratios are told: "price" is time by default over time without determinism, "gain" is time without sharing
// over time with it. "planning" is the share of a run that schedule and plans of steps take.

#include <fmt/core.h>

#include <algorithm>

#include "bench/harness.h"
#include "core/thread_waiting.h"
#include "infer/engine.h"
#include "kernels/table.h"

namespace tessera::bench {
namespace {

constexpr int64_t kOwn = 32, kNew = 32, kPositions = 8192;
constexpr int64_t kMemory = int64_t{8} << 30;

struct Case {
  std::string name;
  int64_t batch, shared, own, new_tokens;
};

std::vector<int32_t> drawn(uint64_t stream, int64_t count) {
  const RandomStream random(7, stream);
  std::vector<int32_t> ids;
  for (int64_t t = 0; t < count; ++t)
    ids.push_back(static_cast<int32_t>(random.bits(static_cast<uint64_t>(t)) % 40000));
  return ids;
}

std::vector<Request> requests_of(const Case& c, int64_t tokens) {
  std::vector<Request> requests(static_cast<size_t>(c.batch));
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt = drawn(0, c.shared);
    const std::vector<int32_t> own = drawn(i + 1, c.own);
    requests[i].prompt.insert(requests[i].prompt.end(), own.begin(), own.end());
    requests[i].max_tokens = tokens;  // no token stops it
  }
  return requests;
}

struct Run {
  double seconds;
  EngineCounts counts;
};

class Bench {
 public:
  Bench(const std::string& folder, int threads, int rounds) : threads_(threads), rounds_(rounds) {
    Model::Settings settings;
    settings.model.path = folder;
    settings.gradients = false;
    settings.max_position = kPositions;
    model_ = std::make_unique<Model>(settings);
  }

  void measure(const Case& c) {
    const bool shares = c.shared > 0 && c.batch > 1;
    std::vector<double> seconds, prices, gains;
    EngineCounts counts;
    run(c, {});  // warm
    for (int round = 0; round < rounds_; ++round) {
      const Run ours = measured(c, {});
      seconds.push_back(ours.seconds);
      counts = ours.counts;
      prices.push_back(ours.seconds / measured(c, {.deterministic = false}).seconds);
      if (shares) gains.push_back(measured(c, {.prefix = PrefixMode::off}).seconds / ours.seconds);
    }
    const Timing t = timing_of(seconds);
    const auto tokens = static_cast<double>(c.new_tokens > 0 ? c.batch * c.new_tokens : c.shared + c.own);
    const std::string gain = shares ? fmt::format(R"(, "gain": {:.3f})", timing_of(gains).median) : "";
    fmt::print(R"({{"bench": "engine", "case": "{}", "machine": "{}", "threads": {}, "tokens_per_second": {:.2f}, )"
               R"("spread": {:.4f}, "price": {:.4f}{}, "planning": {:.5f}, "computed": {}, "kv_bytes": {}}})"
               "\n",
               c.name, machine(), threads_, tokens / t.median, t.spread / t.median, timing_of(prices).median, gain,
               counts.planning_seconds / whole_seconds_, counts.schedule.computed, counts.kv_bytes_read);
    std::fflush(stdout);
  }

 private:
  Run run(const Case& c, const EngineOptions& options, int64_t tokens = 1) {
    const std::vector<Request> requests = requests_of(c, tokens);
    const BatchPlan plan = plan_batch(requests, options.prefix, options.page_tokens, kPositions, threads_);
    const EngineMemory memory = plan_engine_memory(*model_, plan, options, threads_, kMemory);
    Arena arena(memory.bytes());
    const Context ctx{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = arena, .threads = threads_};
    const double begin = seconds_now();
    const EngineCounts counts = run_engine(ctx, *model_, requests, plan, options, memory.bundles, {}, nullptr, {});
    return {seconds_now() - begin, counts};
  }

  /// Seconds of decoding, or of the prompt alone.
  Run measured(const Case& c, const EngineOptions& options) {
    const Run one = run(c, options);
    whole_seconds_ = one.seconds;
    if (c.new_tokens == 0) return one;
    const Run all = run(c, options, c.new_tokens + 1);
    whole_seconds_ = all.seconds;
    return {all.seconds - one.seconds, all.counts};
  }

  std::unique_ptr<Model> model_;
  int threads_, rounds_;
  double whole_seconds_ = 1;
};

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc < 2) {
    fmt::print(stderr, "engine_bench MODEL [threads] [rounds]\n");
    return 2;
  }
  shorten_thread_spinning(argv);  // as trainer
  bench::Bench bench(argv[1], argc > 2 ? std::atoi(argv[2]) : 1, argc > 3 ? std::atoi(argv[3]) : 3);
  using bench::kNew;
  using bench::kOwn;
  for (const bench::Case& c :
       {bench::Case{"prefill 512", 1, 0, 512, 0}, bench::Case{"decode 1", 1, 0, kOwn, kNew},
        bench::Case{"decode 32", 32, 0, kOwn, kNew}, bench::Case{"decode 32 behind 512", 32, 512, kOwn, kNew},
        bench::Case{"decode 32 behind 1024", 32, 1024, kOwn, kNew},
        bench::Case{"decode 32 behind 4096", 32, 4096, kOwn, kNew}})
    bench.measure(c);
}
