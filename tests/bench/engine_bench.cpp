// engine_bench MODEL [threads] [rounds]: batches of the inference engine, as whole runs of it. MODEL is a Hugging Face
// folder, whose weights are read as they are stored.
//
//   prefill N             one prompt of N tokens                              tokens of the prompt a second
//   decode B              B prompts of 32 tokens that share nothing           new tokens a second
//   decode B behind P     B prompts with P tokens in common and 32 of their own
// The time of `kNew` + 1 new tokens less that of one is decoding. Each case is measured as it is by default, with
// `deterministic = false`, and where prompts share something with `prefix = off`; in turn, and the medians of the
// rounds' own ratios are told: "price" is time by default over time without determinism, "gain" is time without sharing
// over time with it. "planning" is the share of a run that planning takes: of the batch, its schedule, and its steps.
//
// With --serve in place of rounds, a line of the input is measured at a time (scripts/bench): "read", or
// "run B P OWN NEW DETERMINISTIC", a batch as above with NEW new tokens and DETERMINISTIC 0 or 1.

#include <fmt/core.h>

#include <algorithm>
#include <iostream>

#include "bench/plain_read.h"
#include "core/thread_waiting.h"
#include "infer/engine.h"
#include "kernels/table.h"

namespace tessera::bench {
namespace {

constexpr int64_t kOwn = 32, kNew = 32, kPositions = 8192;
constexpr int64_t kMemory = int64_t{8} << 30, kReadBytes = int64_t{256} << 20;

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

/// A point of a run, behind one of its passes.
struct Mark {
  int64_t generated = 0, kv_bytes = 0, passes = 0;
  double seconds = 0, processor = 0;
};

/// Passes in which every request is continued by a token and nothing else is done: from the one that ends the prompts
/// to the last one in which none ends.
class DecodingWindow {
 public:
  explicit DecodingWindow(int64_t prompt_tokens) : prompt_tokens_(prompt_tokens) {}

  EngineHooks hooks() {
    return {.finished = [this](int32_t, RequestResult&&) { is_over_ = true; },
            .stepped = [this](const EngineCounts& counts) { step(counts); }};
  }
  Mark first, last;

 private:
  void step(const EngineCounts& counts) {
    if (is_over_ || counts.schedule.computed < prompt_tokens_) return;
    last = {counts.generated, counts.kv_bytes_read, counts.schedule.steps, seconds_now(), processor_seconds_now()};
    if (first.passes == 0) first = last;
  }
  int64_t prompt_tokens_;
  bool is_over_ = false;
};

struct Run {
  double seconds, processor, planning;
  EngineCounts counts;
  Mark first, last;  // of its DecodingWindow
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
               planning_, counts.schedule.computed, counts.kv_bytes_read);
    std::fflush(stdout);
  }

  /// One run, as a line of JSON.
  void serve(const Case& c, bool deterministic) {
    const Run r = run(c, {.deterministic = deterministic}, c.new_tokens);
    fmt::print(R"({{"seconds": {:.6f}, "processor_seconds": {:.6f}, "planning_seconds": {:.6f}, "computed": {}, )"
               R"("generated": {}, "decoding": {{"passes": {}, "tokens": {}, "kv_bytes": {}, "seconds": {:.6f}, )"
               R"("processor_seconds": {:.6f}}}}})"
               "\n",
               r.seconds, r.processor, r.planning, r.counts.schedule.computed, r.counts.generated,
               r.last.passes - r.first.passes, r.last.generated - r.first.generated, r.last.kv_bytes - r.first.kv_bytes,
               r.last.seconds - r.first.seconds, r.last.processor - r.first.processor);
    std::fflush(stdout);
  }

 private:
  Run run(const Case& c, const EngineOptions& options, int64_t tokens = 1) {
    const std::vector<Request> requests = requests_of(c, tokens);
    const double plan_begin = seconds_now();
    const BatchPlan plan = plan_batch(requests, options.prefix, options.page_tokens, kPositions, threads_);
    const EngineMemory memory = plan_engine_memory(*model_, plan, options, threads_, kMemory);
    const double planning = seconds_now() - plan_begin;
    Arena arena(memory.bytes());
    const Context ctx{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = arena, .threads = threads_};
    DecodingWindow window(plan.tree.tokens());
    const double begin = seconds_now(), processor_begin = processor_seconds_now();
    const EngineCounts counts =
        run_engine(ctx, *model_, requests, plan, options, memory.bundles, {}, nullptr, window.hooks());
    return {.seconds = seconds_now() - begin,
            .processor = processor_seconds_now() - processor_begin,
            .planning = planning + counts.planning_seconds,
            .counts = counts,
            .first = window.first,
            .last = window.last};
  }

  /// Seconds of decoding, or of the prompt alone.
  Run measured(const Case& c, const EngineOptions& options) {
    const Run one = run(c, options);
    planning_ = one.planning / (one.planning + one.seconds);
    if (c.new_tokens == 0) return one;
    Run all = run(c, options, c.new_tokens + 1);
    planning_ = all.planning / (all.planning + all.seconds);
    all.seconds -= one.seconds;
    return all;
  }

  std::unique_ptr<Model> model_;
  int threads_, rounds_;
  double planning_ = 0;  // share of the last run
};

/// Answers each line of the input.
void serve(Bench& bench, int threads) {
  Tensor memory(Shape{kReadBytes / 4}, DType::f32);
  for (float& x : memory.as<float>()) x = 1;
  for (std::string what; std::cin >> what;) {
    if (what == "read") {
      const double rate = static_cast<double>(kReadBytes) / read_plainly(memory, threads).best;
      fmt::print(R"({{"bytes_per_second": {:.0f}}})"
                 "\n",
                 rate);
      std::fflush(stdout);
      continue;
    }
    Case c{.name = what, .batch = 0, .shared = 0, .own = 0, .new_tokens = 0};
    bool deterministic = true;
    std::cin >> c.batch >> c.shared >> c.own >> c.new_tokens >> deterministic;
    bench.serve(c, deterministic);
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  if (argc < 2) {
    fmt::print(stderr, "engine_bench MODEL [threads] [rounds], or --serve behind the threads\n");
    return 2;
  }
  shorten_thread_spinning(argv);  // as trainer
  const int threads = argc > 2 ? std::atoi(argv[2]) : 1;
  const bool serves = argc > 3 && std::string_view(argv[3]) == "--serve";
  bench::Bench bench(argv[1], threads, argc > 3 && !serves ? std::atoi(argv[3]) : 3);
  if (serves) {
    bench::serve(bench, threads);
    return 0;
  }
  using bench::kNew;
  using bench::kOwn;
  for (const bench::Case& c :
       {bench::Case{"prefill 512", 1, 0, 512, 0}, bench::Case{"decode 1", 1, 0, kOwn, kNew},
        bench::Case{"decode 32", 32, 0, kOwn, kNew}, bench::Case{"decode 32 behind 512", 32, 512, kOwn, kNew},
        bench::Case{"decode 32 behind 1024", 32, 1024, kOwn, kNew},
        bench::Case{"decode 32 behind 4096", 32, 4096, kOwn, kNew}})
    bench.measure(c);
}
