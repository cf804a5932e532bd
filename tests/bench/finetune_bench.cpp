// Training steps of a SmolLM2-135M-shaped random model, LoRA r=8, MoS e=2 r=8 and all weights, as a share of what the
// machine's best sgemm would need for the same arithmetic. All are timed in turn, round after round,
// so that a noisy machine hits all alike.
//
//   FLOP a token = 4 P_matmul + 3.5 A + low rank,   A = 2 T Hq d L (causal),   low rank = 6 Σ r (in + out)
//                  6 P_matmul + 3.5 A for all weights
//   limit = best sgemm of the run, ours or the linked CBLAS's (2048^3, all cores). Without a CBLAS there is no limit to
//           speak of, since ours would be measured by itself, and no share is printed. The library runs the kernel that
//           it takes by itself, which need not be its best (OPENBLAS_CORETYPE); scripts/bench tries others, and MKL.
//
//   finetune_bench [threads] [rounds] [sequence_length] [target]
//   finetune_bench --flop [sequence_length]    FLOP a token of each, nothing is run

#include <filesystem>
#include <fstream>

#include "bench/harness.h"
#include "bench/library_gemm.h"
#include "core/error.h"
#include "core/thread_waiting.h"
#include "kernels/cpu_target.h"
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

constexpr const char* kAllWeights = "full";

/// config.json of the model, stored in `dtype`.
std::filesystem::path config_of(const std::string& dtype) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("tessera-finetune-bench-{}.json", dtype);
  std::ofstream(path) << bench::smollm2_config(dtype);
  return path;
}

Model::Settings settings_of(const std::string& method, const std::string& dtype, int64_t length) {
  Model::Settings settings;
  settings.model.path = config_of(dtype);
  settings.model.init = "random";
  settings.train_base = method == kAllWeights;
  if (!settings.train_base) settings.adapter.method = method;
  settings.adapter.rank = 8;
  settings.adapter.equivalent_rank = 2;
  settings.max_position = length;
  return settings;
}

double flop_per_token(const ModelConfig& c, const std::string& method, int64_t length) {
  double matmul = 0, low_rank = 0;
  for (const WeightSpec& spec : weight_specs(c))
    if (spec.role == Role::linear || spec.role == Role::head) {
      matmul += static_cast<double>(spec.shape.count());
      if (spec.role == Role::linear) low_rank += 6.0 * 8 * static_cast<double>(spec.shape[0] + spec.shape[1]);
    }
  const double attention = 3.5 * 2.0 * static_cast<double>(length * c.query_width() * c.num_hidden_layers);
  return attention + (method == kAllWeights ? 6 * matmul : 4 * matmul + low_rank);
}

/// A model with an adapter or without, and one optimizer step of it.
class Finetune {
 public:
  Finetune(const std::string& dtype, const std::string& method, int64_t length, int threads)
      : name_(fmt::format("{} {}", method, dtype)), method_(method), batch_(batch_of(length, 49152)) {
    model_ = std::make_unique<Model>(settings_of(method, dtype, length));
    arena_ = std::make_unique<Arena>(plan_backprop_bytes(*model_, 1, length, threads));
    ctx_ = std::make_unique<Context>(
        Context{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = *arena_, .threads = threads});
    optimizer_ = make_optimizer({}, model_->pool().trainable().values.shape.count());
    model_->assemble(*ctx_);
    step();  // to warm up
  }

  void measure_step() {
    const double begin = bench::seconds_now(), processor_begin = bench::processor_seconds_now();
    step();
    seconds_.push_back(bench::seconds_now() - begin);
    processor_.push_back(bench::processor_seconds_now() - processor_begin);
  }

  double last_seconds() const { return seconds_.back(); }

  /// @param limit  FLOP a second of the best product; 0 without a library to compare with
  void report(double limit) const {
    const double tokens = static_cast<double>(batch_.sequence_length),
                 flop = flop_per_token(model_->config(), method_, batch_.sequence_length) * tokens;
    const bench::Timing t = bench::timing_of(seconds_, processor_);
    const std::string share = limit > 0 ? fmt::format(R"(, "best_sgemm_gflop_per_second": {:.1f}, )"
                                                      R"("share_of_limit": {:.3f}, "best_share": {:.3f})",
                                                      limit * 1e-9, flop / t.median / limit, flop / t.best / limit)
                                        : "";
    fmt::print(
        R"({{"bench": "finetune", "case": "{}", "machine": "{}", "target": "{}", "threads": {}, "sequence_length": {}, )"
        R"("trained": {}, "tokens_per_second": {:.1f}, "best_tokens_per_second": {:.1f}, )"
        R"("processor_seconds": {:.4f}, "gflop_per_second": {:.1f}{}}})"
        "\n",
        name_, bench::machine(), cpu_target(), ctx_->threads, batch_.sequence_length, model_->pool().trainable_count(),
        tokens / t.median, tokens / t.best, t.processor, flop / t.median * 1e-9, share);
  }

 private:
  void step() {
    model_->pool().zero_grads();
    const LossSums sums = backprop_batch(*ctx_, *model_, batch_);
    if (model_->bound_adapter()) model_->bound_adapter()->finish_backward(*ctx_);
    optimizer_->step(*ctx_, model_->pool().trainable(), {++steps_, 1e-4f, static_cast<float>(1.0 / sums["scored"])});
    model_->assemble(*ctx_);
  }

  std::string name_, method_;
  PackedBatch batch_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Context> ctx_;
  std::unique_ptr<Optimizer> optimizer_;
  int64_t steps_ = 0;
  std::vector<double> seconds_, processor_;
};

/// The best product of 2048^3 so far, ours or the library's.
class Limit {
 public:
  explicit Limit(int threads)
      : a_(bench::random_tensor({kN, kN}, 1)),
        b_(bench::random_tensor({kN, kN}, 2)),
        c_({kN, kN}, DType::f32),
        scratch_(64 << 20),
        ctx_{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = scratch_, .threads = threads} {}

  void measure() {
    take([&] { gemm(ctx_, {.a = a_.view(), .b = b_.view(), .c = c_.view()}); });
#ifdef TESSERA_BLAS_NAME
    bench::set_library_threads(ctx_.threads);
    take([&] { bench::library_sgemm(kN, kN, kN, a_, Transpose::no, b_, Transpose::no, 0, c_); });
#endif
  }

  /// FLOP a second; 0 without a library.
  double flop_per_second() const {
#ifdef TESSERA_BLAS_NAME
    return 2.0 * kN * kN * kN / best_seconds_;
#else
    return 0;
#endif
  }

 private:
  static constexpr int64_t kN = 2048;
  template <class Work> void take(Work&& work) {
    const double begin = bench::seconds_now();
    work();
    best_seconds_ = std::min(best_seconds_, bench::seconds_now() - begin);
  }

  Tensor a_, b_, c_;
  Arena scratch_;
  Context ctx_;
  double best_seconds_ = 1e9;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void run(int threads, int rounds, int64_t length, const std::string& dtype) {
  Finetune lora(dtype, "lora", length, threads), mos(dtype, "mos", length, threads);
  std::unique_ptr<Finetune> all;  // trained weights are f32, whatever is stored
  if (dtype == "float32") all = std::make_unique<Finetune>(dtype, kAllWeights, length, threads);
  Limit limit(threads);
  std::vector<double> cost;
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < 5; ++i) limit.measure();
    lora.measure_step();
    const double before = lora.last_seconds();
    mos.measure_step();
    lora.measure_step();
    cost.push_back(mos.last_seconds() / (0.5 * (before + lora.last_seconds())) - 1);
    if (all) all->measure_step();
  }
  lora.report(limit.flop_per_second());
  mos.report(limit.flop_per_second());
  if (all) all->report(limit.flop_per_second());
  fmt::print(R"({{"bench": "finetune", "case": "cost of MoS over LoRA {}", "median_percent": {:.2f}}})"
             "\n",
             dtype, 100 * median(cost));
}

void print_flop(int64_t length) {
  for (const std::string method : {"lora", "mos", kAllWeights}) {
    Model::Settings settings = settings_of(method, "float32", length);
    settings.memory = Memory::counted;
    const Model model(settings);
    fmt::print(R"({{"method": "{}", "flop_per_token": {:.0f}}})"
               "\n",
               method, flop_per_token(model.config(), method, length));
  }
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "--flop")
    return tessera::print_flop(argc > 2 ? std::atoi(argv[2]) : 512), 0;
  tessera::shorten_thread_spinning(argv);
  if (argc > 4) tessera::use_cpu_target(argv[4]);
  const int threads = tessera::bench::threads_from(argc, argv), rounds = argc > 2 ? std::atoi(argv[2]) : 7;
  const int64_t length = argc > 3 ? std::atoi(argv[3]) : 512;
  tessera::run(threads, rounds, length, "float32");
  tessera::run(threads, rounds, length, "bfloat16");
}
