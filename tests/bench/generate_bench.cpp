// generate_bench MODEL [threads] [target] [batch] [tokens]: tokens a second of greedy generation, so many sequences at
// once behind 32 tokens each. MODEL is a Hugging Face folder, whose weights are read as they are stored.
//
// Reading the prompts is left out: what is measured is the time of `tokens` + 1 new tokens less that of one.
// With --serve in place of batch and tokens, a line "batch tokens" of the input is measured at a time (scripts/bench).

#include <algorithm>
#include <iostream>

#include "bench/harness.h"
#include "core/error.h"
#include "core/thread_waiting.h"
#include "infer/engine.h"
#include "kernels/cpu_target.h"
#include "kernels/table.h"

namespace tessera::bench {
namespace {

constexpr int64_t kPrompt = 32, kPositions = 1024;
constexpr int64_t kStep = 512;                 // rows of a pass, which prompts fill
constexpr int64_t kMemory = int64_t{8} << 30;  // for pages, of which a batch takes what it needs

/// Requests of the same length, which share nothing.
std::vector<Request> requests_of(int64_t batch, int64_t tokens) {
  const RandomStream random(7, 0);
  std::vector<Request> requests(static_cast<size_t>(batch));
  uint64_t drawn = 0;
  for (Request& request : requests) {
    request.max_tokens = tokens;  // no token stops it
    for (int64_t t = 0; t < kPrompt; ++t) request.prompt.push_back(static_cast<int32_t>(random.bits(drawn++) % 40000));
  }
  return requests;
}

struct Seconds {
  double wall, processor;
};

class Generation {
 public:
  Generation(const std::string& folder, int threads) : threads_(threads) {
    Model::Settings settings;
    settings.model.path = folder;
    settings.gradients = false;
    settings.max_position = kPositions;
    model_ = std::make_unique<Model>(settings);
  }

  void run(int64_t batch, int64_t tokens) {
    const Seconds one = seconds_of(batch, 1), all = seconds_of(batch, tokens + 1);
    const double wall = all.wall - one.wall, processor = all.processor - one.processor;
    const auto made = static_cast<double>(batch * tokens);
    fmt::print(R"({{"bench": "generate", "case": "batch {}", "machine": "{}", "threads": {}, "target": "{}", )"
               R"("tokens_per_second": {:.2f}, "tokens_per_processor_second": {:.2f}}})"
               "\n",
               batch, machine(), threads_, cpu_target(), made / wall, made / processor);
    std::fflush(stdout);
  }

 private:
  Seconds seconds_of(int64_t batch, int64_t tokens) {
    const std::vector<Request> requests = requests_of(batch, tokens);
    const EngineOptions options{.step_tokens = std::max(kStep, batch), .max_sequences = batch};
    const BatchPlan plan =
        plan_batch(requests, options.prefix, options.page_tokens, model_->decoder().max_position(), threads_);
    const EngineMemory memory = plan_engine_memory(*model_, plan, options, threads_, kMemory);
    Arena arena(memory.bytes());
    const Context ctx{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = arena, .threads = threads_};
    const double begin = seconds_now(), processor_begin = processor_seconds_now();
    run_engine(ctx, *model_, requests, plan, options, memory.bundles, {}, nullptr, {});
    return {seconds_now() - begin, processor_seconds_now() - processor_begin};
  }

  std::unique_ptr<Model> model_;
  int threads_;
};

int64_t number_of(std::string_view text) { return std::atoi(std::string(text).c_str()); }

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  if (words.empty()) {
    fmt::print(stderr, "generate_bench MODEL [threads] [target] [batch] [tokens], or --serve behind the target\n");
    return 2;
  }
  shorten_thread_spinning(argv);  // as trainer
  if (words.size() > 2) use_cpu_target(words[2]);
  bench::Generation generation(argv[1], words.size() > 1 ? static_cast<int>(bench::number_of(words[1])) : 1);
  if (words.size() > 3 && words[3] == "--serve") {
    for (int64_t batch = 0, tokens = 0; std::cin >> batch >> tokens;) generation.run(batch, tokens);
    return 0;
  }
  generation.run(words.size() > 3 ? bench::number_of(words[3]) : 1,
                 words.size() > 4 ? bench::number_of(words[4]) : 128);
}
