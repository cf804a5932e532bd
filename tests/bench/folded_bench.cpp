// folded_bench [threads] [rounds] [gates]: a SmolLM2-135M-shaped random model of stored bf16, and folded models of it.
//
//   decode    tokens a second, one by one (64 behind 64), and the bytes that a pass reads: the original; without every
//             fourth block of its middle; with the others in pairs that read one block; in fours. Pairs compute as much
//             as the model without sharing: what they gain, the second pass over a block's weights finds in the cache
//   gates     a training step of gates beside one of LoRA and one of all weights, for each row of 256 tokens
//
// The models take turns, so that a noisy machine hits all alike; medians are printed.

#include <filesystem>
#include <fstream>

#include "bench/harness.h"
#include "comm/data_groups.h"
#include "compress/child_starts.h"
#include "compress/folded_model.h"
#include "compress/gate_backprop.h"
#include "compress/gate_trainer.h"
#include "compress/gate_units.h"
#include "compress/model_sizes.h"
#include "core/error.h"
#include "core/thread_waiting.h"
#include "infer/speed.h"
#include "kernels/compute.h"
#include "score/forward.h"
#include "train/backprop.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

constexpr int64_t kLayers = 30, kRow = 256;
constexpr SpeedTrial kTrial{.prompt = 512, .context = 64, .next = 64, .repeats = 1};

std::filesystem::path config_folder() {
  const auto folder = std::filesystem::temp_directory_path() / "tessera-folded-bench";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << bench::smollm2_config("bfloat16");
  return folder;
}

enum class Trains { nothing, lora, all };

Model::Settings settings_of(Trains trains = Trains::nothing) {
  Model::Settings settings;
  settings.model.path = config_folder();
  settings.model.init = "random";
  settings.model.dtype = trains == Trains::all ? "f32" : "auto";
  settings.adapter.method = trains == Trains::lora ? "lora" : "none";
  settings.adapter.rank = 8;
  settings.train_base = trains == Trains::all;
  settings.gradients = trains != Trains::nothing;
  settings.max_position = kTrial.prompt;
  return settings;
}

/// The middle blocks, 2 to 28, in runs of so many of those that are left.
FoldPlan plan_of(std::vector<int64_t> removed, int64_t group) {
  FoldPlan plan;
  plan.base = {.fingerprint = {}, .layers = kLayers, .model_type = "llama"};
  plan.removed = std::move(removed);
  std::vector<int64_t> run;
  const auto close = [&] {
    if (!run.empty()) plan.groups.push_back({.blocks = run, .parent = run.front()});
    run.clear();
  };
  for (const int64_t block : retained_blocks(kLayers, plan.removed)) {
    const bool is_single = block < 2 || block == kLayers - 1;
    if (is_single || static_cast<int64_t>(run.size()) == group) close();
    run.push_back(block);
    if (is_single) close();
  }
  close();
  return plan;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void run_speeds(int threads, int rounds) {
  const std::vector<int64_t> some = {5, 9, 13, 17, 21, 25};
  const std::vector<std::pair<std::string, FoldPlan>> plans = {
      {"30 layers, all stored", plan_of({}, 1)}, {"24 layers, all stored", plan_of(some, 1)},
      {"24 layers in pairs", plan_of(some, 2)},  {"24 layers in fours", plan_of(some, 4)},
      {"30 layers in pairs", plan_of({}, 2)},    {"30 layers in fours", plan_of({}, 4)}};
  Model original(settings_of());
  const ModelShapes shapes = shapes_of(original.decoder().specs());
  std::vector<std::unique_ptr<Model>> models;
  for (const auto& [name, plan] : plans) {
    FoldMaking making{.plan = plan, .state = {}};
    add_drawn_starts(original, plan, making.starts);
    models.push_back(std::make_unique<Model>(folded_settings(original, std::move(making), 1)));
  }
  const Compute compute({.threads = threads}, plan_speed_bytes(original, kTrial, threads));
  std::vector<std::vector<double>> decode(plans.size()), prefill(plans.size());
  for (int round = -1; round < rounds; ++round)
    for (size_t i = 0; i < plans.size(); ++i) {
      const Speed speed = *measure_speed(compute, *models[i], kTrial, {});
      if (round < 0) continue;  // warm-up
      decode[i].push_back(speed.decode);
      prefill[i].push_back(speed.prefill);
    }
  for (size_t i = 0; i < plans.size(); ++i)
    fmt::print(
        R"({{"bench": "folded", "case": "{}", "machine": "{}", "threads": {}, "resident_mb": {:.1f}, "decode_tokens_per_second": {:.2f}, "prefill_tokens_per_second": {:.1f}, "rounds": {}}})"
        "\n",
        plans[i].first, bench::machine(), threads,
        static_cast<double>(sizes_of(*models[i], shapes, &plans[i].second).bytes_resident) * 1e-6, median(decode[i]),
        median(prefill[i]), rounds);
}

PackedDataset rows_of(int64_t rows) {
  TokenData data;
  const RandomStream random(7, 0);
  for (int64_t t = 0; t < rows * kRow; ++t) {
    data.tokens.push_back(static_cast<int32_t>(random.bits(static_cast<uint64_t>(t)) % 49152));
    data.scored.push_back(1);
    if ((t + 1) % kRow == 0) data.ends.push_back(t + 1);
  }
  data.hash = "drawn";
  return PackedDataset(std::move(data), kRow, 1);
}

double seconds_of(const std::function<void()>& work) {
  const double begin = bench::seconds_now();
  work();
  return bench::seconds_now() - begin;
}

constexpr int64_t kRows = 2;  // of a step: enough for a pass of 512 tokens, as a training takes them

/// Steps of training by backpropagation, AdamW behind it.
class Tuning {
 public:
  Tuning(const Compute& compute, Model& model, const PackedDataset& data)
      : compute_(compute),
        model_(model),
        data_(data),
        optimizer_(make_optimizer({}, model.pool().trainable().values.shape.count())) {
    model_.assemble(compute_);
  }
  void step() {
    std::vector<int64_t> rows = {2 * steps_ % 64, (2 * steps_ + 1) % 64};
    model_.pool().zero_grads();
    const LossSums sums = backprop_batch(compute_, model_, data_.batch(rows, 0));
    if (model_.bound_adapter()) model_.bound_adapter()->finish_backward(compute_);
    optimizer_->step(compute_, model_.pool().trainable(), {++steps_, 1e-4f, static_cast<float>(1.0 / sums["scored"])});
    model_.assemble(compute_);
  }

 private:
  const Compute& compute_;
  Model& model_;
  const PackedDataset& data_;
  std::unique_ptr<Optimizer> optimizer_;
  int64_t steps_ = 0;
};

void run_gates(int threads, int rounds) {
  FoldConfig fold;
  fold.gate_batch = kRows;
  fold.gate_steps = 1'000'000;
  fold.calibration_rows = 1;
  TrainConfig train;
  train.sequence_length = kRow;
  const CheckpointConfig checkpoint;
  const PackedDataset data = rows_of(64);
  const auto world = self_communicator();
  Model frozen(settings_of()), lora(settings_of(Trains::lora)), all(settings_of(Trains::all));
  const StageSizes sizes{.fold = fold, .train = train, .model = frozen, .ranks = 1, .threads = threads};
  const Compute compute({.threads = threads},
                        std::max({plan_backprop_gates(sizes), plan_backprop_bytes(lora, kRows, kRow, threads),
                                  plan_backprop_bytes(all, kRows, kRow, threads)}));
  const StageInputs in{.fold = fold,
                       .train = train,
                       .checkpoint = checkpoint,
                       .keys = {},
                       .where_fold = "fold",
                       .model = frozen,
                       .data = data,
                       .world = *world,
                       .ctx = compute,
                       .folder = {},
                       .say = [](const std::string&) {},
                       .stop_requested = [] { return false; },
                       .share = data_share_of(*world)};
  const GateUnits units = gate_units(fold, frozen.decoder().specs(), kLayers);
  const auto trainer = make_gate_trainer(in, units, std::nullopt);
  Tuning tuned_lora(compute, lora, data), tuned_all(compute, all, data);
  std::vector<double> gate_seconds, lora_seconds, all_seconds, of_lora, of_all;
  for (int round = -1; round < rounds; ++round) {
    const double gates = seconds_of([&] { trainer->take_step(); }), by_lora = seconds_of([&] { tuned_lora.step(); }),
                 by_all = seconds_of([&] { tuned_all.step(); });
    if (round < 0) continue;
    gate_seconds.push_back(gates);
    lora_seconds.push_back(by_lora);
    all_seconds.push_back(by_all);
    of_lora.push_back(gates / by_lora);
    of_all.push_back(gates / by_all);
  }
  const auto rate = [&](const std::vector<double>& seconds) { return kRows * kRow / median(seconds); };
  fmt::print(
      R"({{"bench": "folded", "case": "gates beside training", "machine": "{}", "threads": {}, "gate_tokens_per_second": {:.1f}, "lora_tokens_per_second": {:.1f}, "all_tokens_per_second": {:.1f}, "seconds_of_lora": {:.3f}, "seconds_of_all": {:.3f}, "rounds": {}}})"
      "\n",
      bench::machine(), threads, rate(gate_seconds), rate(lora_seconds), rate(all_seconds), median(of_lora),
      median(of_all), rounds);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  tessera::shorten_thread_spinning(argv);
  const int threads = tessera::bench::threads_from(argc, argv), rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  if (argc <= 3 || std::string(argv[3]) != "gates") tessera::run_speeds(threads, rounds);
  tessera::run_gates(threads, rounds);
}
