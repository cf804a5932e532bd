// Fine-tuning steps of a SmolLM2-135M-shaped random model, LoRA r=8 and MoS e=2 r=8, as a share of what the machine's
// best sgemm would need for the same arithmetic. All three are timed in turn, round after round,
// so that a noisy machine hits all alike.
//
//   FLOP a token = 4 P_matmul + 3.5 A + low rank,   A = 2 T Hq d L (causal),   low rank = 6 Σ r (in + out)
//   limit = best sgemm of the run, ours or the linked CBLAS's (2048^3, all cores)
//
//   finetune_bench [threads] [rounds] [sequence_length]

#include <filesystem>
#include <fstream>

#include "bench/harness.h"
#include "bench/library_gemm.h"
#include "core/error.h"
#include "core/thread_waiting.h"
#include "kernels/gemm.h"
#include "kernels/table.h"
#include "train/backprop.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

PackedBatch batch_of(int64_t length, int64_t vocab) {
  PackedBatch batch;
  batch.rows = 1;
  batch.sequence_length = length;
  const RandomStream random(7, 0);
  for (int64_t t = 0; t < length; ++t) {
    batch.ids.push_back(static_cast<int32_t>(random.bits(static_cast<uint64_t>(t)) % static_cast<uint32_t>(vocab)));
    batch.positions.push_back(static_cast<int32_t>(t));
    batch.draw_index.push_back(t);
  }
  for (int64_t t = 0; t < length; ++t)
    batch.labels.push_back(t + 1 < length ? batch.ids[t + 1] : batch.ids[0]);  // every position scored
  batch.documents.push_back({0, length});
  return batch;
}

/// A model with an adapter, and one optimizer step of it.
class Finetune {
 public:
  Finetune(const std::filesystem::path& config, const std::string& method, int64_t length, int threads)
      : batch_(batch_of(length, 49152)), method_(method) {
    Model::Settings settings;
    settings.model.path = config;
    settings.model.init = "random";
    settings.adapter.method = method;
    settings.adapter.rank = 8;
    settings.adapter.equivalent_rank = 2;
    settings.max_position = length;
    model_ = std::make_unique<Model>(settings);
    arena_ = std::make_unique<Arena>(plan_backprop_bytes(*model_, 1, length, threads));
    ctx_ = std::make_unique<Context>(
        Context{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = *arena_, .threads = threads});
    optimizer_ = make_optimizer({}, model_->pool().trainable().values.shape.count());
    model_->assemble(*ctx_);
  }

  void step() {
    model_->pool().zero_grads();
    const LossSums sums = backprop_batch(*ctx_, *model_, batch_);
    model_->bound_adapter()->finish_backward(*ctx_);
    optimizer_->step(*ctx_, model_->pool().trainable(), {++steps_, 1e-4f, static_cast<float>(1.0 / sums["scored"])});
    model_->assemble(*ctx_);
  }

  double flop_per_token() const {
    double matmul = 0, low_rank = 0;
    const ModelConfig& c = model_->config();
    for (const WeightSpec& spec : weight_specs(c))
      if (spec.role == Role::linear || spec.role == Role::head) {
        matmul += static_cast<double>(spec.shape.count());
        if (spec.role == Role::linear) low_rank += 6.0 * 8 * static_cast<double>(spec.shape[0] + spec.shape[1]);
      }
    const double attention = 2.0 * static_cast<double>(batch_.sequence_length * c.query_width() * c.num_hidden_layers);
    return 4 * matmul + 3.5 * attention + low_rank;
  }
  const std::string& method() const { return method_; }
  int64_t trained() { return model_->pool().trainable_count(); }

 private:
  PackedBatch batch_;
  std::string method_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Context> ctx_;
  std::unique_ptr<Optimizer> optimizer_;
  int64_t steps_ = 0;
};

double seconds_of(const std::function<void()>& work) {
  const double begin = bench::seconds_now();
  work();
  return bench::seconds_now() - begin;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void run(int threads, int rounds, int64_t length, const std::string& dtype) {
  const auto config = std::filesystem::temp_directory_path() / fmt::format("tessera-finetune-bench-{}.json", dtype);
  const std::string text = bench::smollm2_config(dtype);
  std::ofstream(config) << text;
  Finetune lora(config, "lora", length, threads), mos(config, "mos", length, threads);

  constexpr int64_t N = 2048;
  const Tensor a = bench::random_tensor({N, N}, 1), b = bench::random_tensor({N, N}, 2), c({N, N}, DType::f32);
  Arena scratch(64 << 20);
  const Context ctx{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = scratch, .threads = threads};
  std::vector<double> gemm_seconds, lora_seconds, mos_seconds, cost;
  lora.step();
  mos.step();
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < 5; ++i) {
      gemm_seconds.push_back(seconds_of([&] { gemm(ctx, {.a = a.view(), .b = b.view(), .c = c.view()}); }));
#ifdef TESSERA_BLAS_NAME
      bench::set_library_threads(threads);
      gemm_seconds.push_back(
          seconds_of([&] { bench::library_sgemm(N, N, N, a, Transpose::no, b, Transpose::no, 0, c); }));
#endif
    }
    lora_seconds.push_back(seconds_of([&] { lora.step(); }));
    mos_seconds.push_back(seconds_of([&] { mos.step(); }));
    lora_seconds.push_back(seconds_of([&] { lora.step(); }));
    cost.push_back(mos_seconds.back() / (0.5 * (lora_seconds.back() + lora_seconds[lora_seconds.size() - 2])) - 1);
  }
  const double peak = 2.0 * N * N * N / *std::min_element(gemm_seconds.begin(), gemm_seconds.end());
  const auto line = [&](Finetune& run, const std::vector<double>& seconds) {
    const double flop = run.flop_per_token() * static_cast<double>(length),
                 best = *std::min_element(seconds.begin(), seconds.end());
    fmt::print(
        R"({{"bench": "finetune", "case": "{} {}", "machine": "{}", "threads": {}, "sequence_length": {}, "trained": {}, "tokens_per_second": {:.1f}, )"
        R"("best_tokens_per_second": {:.1f}, "gflop_per_second": {:.1f}, "best_sgemm_gflop_per_second": {:.1f}, "share_of_limit": {:.3f}, "best_share": {:.3f}}})"
        "\n",
        run.method(), dtype, bench::machine(), threads, length, run.trained(),
        static_cast<double>(length) / median(seconds), static_cast<double>(length) / best,
        flop / median(seconds) * 1e-9, peak * 1e-9, flop / median(seconds) / peak, flop / best / peak);
  };
  line(lora, lora_seconds);
  line(mos, mos_seconds);
  fmt::print(R"({{"bench": "finetune", "case": "cost of MoS over LoRA {}", "median_percent": {:.2f}}})"
             "\n",
             dtype, 100 * median(cost));
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  tessera::shorten_thread_spinning(argv);
  const int threads = tessera::bench::threads_from(argc, argv), rounds = argc > 2 ? std::atoi(argv[2]) : 7;
  const int64_t length = argc > 3 ? std::atoi(argv[3]) : 512;
  tessera::run(threads, rounds, length, "float32");
  tessera::run(threads, rounds, length, "bfloat16");
}
