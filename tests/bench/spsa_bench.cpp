// What a probe costs beyond its two forward passes, and what a log costs beside the training that wrote it.
//
//   step      = Prober::losses of w + eps z and w - eps z, side by side, + the byte + the record + Replica::apply
//   over      = two forward passes of the same batch over the weights as they are, one after the other
//   replay    = a log of rounds of 16 machines x 16 probes with random bytes, read from disk and applied to the base
//
// Both are timed in turn, round after round, so that a noisy machine hits all alike; ratios are medians of the rounds'
// own. LoRA and MoS perturb scratch copies, full weights each matrix before its product.
// Models: the repository's, and the one that TESSERA_SMOLLM2 names.
//
//   spsa_bench [threads] [rounds] [rows] [sequence_length]

#include <ctime>
#include <filesystem>
#include <random>

#include "bench/harness.h"
#include "core/error.h"
#include "core/thread_waiting.h"
#include "kernels/table.h"
#include "train/backprop.h"
#include "train/spsa/rounds.h"
#include "train/spsa/spsa_inputs.h"
#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
constexpr uint32_t kMachines = 16;
constexpr int64_t kProbes = 16;

struct Rows {
  int64_t count, length;
};

double seconds_of(const std::function<void()>& work) {
  const double begin = bench::seconds_now();
  work();
  return bench::seconds_now() - begin;
}

/// Seconds that the process's threads have run: other work on the machine adds little to it.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double cpu_seconds_of(const std::function<void()>& work) {
  const double begin = cpu_seconds();
  work();
  return cpu_seconds() - begin;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Rows of one document each, every token scored.
PackedBatch batch_of(Rows rows, int64_t vocab) {
  PackedBatch batch = widest_batch(rows.count, rows.length, rows.length);
  const RandomStream random(7, 0);
  for (size_t t = 0; t < batch.ids.size(); ++t) {
    batch.ids[t] = static_cast<int32_t>(random.bits(t) % static_cast<uint32_t>(vocab));
    batch.labels[t] = static_cast<int32_t>(random.bits(t + 1) % static_cast<uint32_t>(vocab));
    batch.positions[t] = static_cast<int32_t>(static_cast<int64_t>(t) % rows.length);
  }
  return batch;
}

/// A model that a round of one probe trains: the parts of SpsaStepper without its transport.
class Training {
 public:
  Training(const fs::path& path, const std::string& method, Rows rows, int threads) : method_(method) {
    Model::Settings settings;
    settings.model.path = path;
    settings.adapter.method = method == "full" ? "none" : method;
    settings.adapter.rank = 8;
    settings.adapter.equivalent_rank = 2;
    settings.train_base = method == "full";
    settings.gradients = false;
    settings.max_position = rows.length;
    model_ = std::make_unique<Model>(settings);
    batch_ = batch_of(rows, model_->config().vocab_size);
    const SpsaConfig config;
    prober_ = make_prober(config, *model_);
    inference_bytes_ = plan_score_bytes(*model_, 2 * rows.count, rows.length, threads);
    probe_bytes_ = prober_->plan_bytes(rows.count, rows.length, threads);
    arena_ = std::make_unique<Arena>(std::max(probe_bytes_, inference_bytes_));
    ctx_ = std::make_unique<Context>(
        Context{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = *arena_, .threads = threads});
    model_->assemble(*ctx_);
    header_ = make_header(config, {}, {.name = "sgd", .momentum = 0}, *model_, "", 1, kNewestRules, "", *ctx_);
    header_.m = 1;
    replica_ = std::make_unique<Replica>(header_, model_->pool().trainable());
  }

  /// Two passes over the weights as they are.
  void bare() {
    for (int side = 0; side < 2; ++side) score_batch(*ctx_, *model_, batch_);
  }

  void step() {
    const uint32_t round = replica_->round();
    const auto eps = static_cast<float>(header_.eps);
    const Direction z = direction_of(header_, round, 0, 0, 0);
    const std::array<Point, 2> points{Point{z, eps}, Point{z, -eps}};
    Vote vote;
    probe_seconds_ = seconds_of([&] {
      const auto sums = prober_->losses(*ctx_, {&batch_, 1}, points);
      const double g = (sums[0]["nll"] - sums[1]["nll"]) / sums[0]["scored"] / (2 * header_.eps);
      write_vote(header_, g, replica_->unit(), round, 0, 0, vote.bytes);
    });
    update_seconds_ = seconds_of([&] {
      const Record record = pack_round(*replica_, {}, {}, {{0, vote}}, 1, {1e-9f, 1});
      replica_->apply(*ctx_, record);
      model_->assemble(*ctx_);
    });
  }

  /// Seconds of one of `kMachines` machines for a round of `kProbes` probes each, and of replaying it;
  /// and the log's size.
  struct Replay {
    double round_seconds, replay_seconds, bytes_per_vote;
    uint32_t rounds;
  };
  Replay replay_log(uint32_t rounds, double probe_seconds) {
    RunHeader header = header_;
    header.m = kProbes;
    FlatParams& params = model_->pool().trainable();
    const fs::path folder = fs::temp_directory_path() / fmt::format("tessera-spsa-bench-{}", method_);
    fs::remove_all(folder);
    StepLog log = StepLog::create(folder, header.text(), {});
    std::vector<double> apply;
    {
      Replica writer(header, params);
      ChainTip tip;
      for (uint32_t round = 0; round < rounds; ++round) {
        const Bytes encoded = encode(pack_round(writer, log.run(), tip, random_votes(round), kMachines, {1e-9f, 1}));
        log.append(encoded);
        tip.advance(encoded);
        apply.push_back(seconds_of([&] { writer.apply(*ctx_, std::get<Record>(decode_record(encoded))); }));
      }
    }
    Replica reader(header, params);
    const double seconds = seconds_of([&] { replay(*ctx_, reader, log, "", rounds); });
    const double votes = static_cast<double>(kMachines * kProbes) * rounds;
    const Replay result{kProbes * probe_seconds + median(apply), seconds / rounds,
                        static_cast<double>(log.bytes_on_disk()) / votes, rounds};
    fs::remove_all(folder);
    return result;
  }

  double probe_seconds() const { return probe_seconds_; }
  double update_seconds() const { return update_seconds_; }
  const std::string& method() const { return method_; }
  int64_t trained() { return model_->pool().trainable_count(); }
  int64_t pool_bytes() const { return model_->pool().owned_bytes(); }
  int64_t extra_bytes() const { return prober_->owned_bytes(); }
  int64_t probe_bytes() const { return probe_bytes_; }
  int64_t inference_bytes() const { return inference_bytes_; }

 private:
  static std::map<uint32_t, Vote> random_votes(uint32_t round) {
    std::mt19937 random(round);
    std::map<uint32_t, Vote> votes;
    for (uint32_t machine = 0; machine < kMachines; ++machine)
      for (int64_t s = 0; s < kProbes; ++s) votes[machine].bytes.push_back(static_cast<uint8_t>(random()));
    return votes;
  }

  PackedBatch batch_;
  std::string method_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Prober> prober_;
  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Context> ctx_;
  RunHeader header_;
  std::unique_ptr<Replica> replica_;
  int64_t probe_bytes_ = 0, inference_bytes_ = 0;
  double probe_seconds_ = 0, update_seconds_ = 0;
};

void run(const fs::path& path, const std::string& method, Rows rows, int threads, int rounds) {
  Training training(path, method, rows, threads);
  training.bare();
  training.step();
  std::vector<double> bare, probe, update, ratio, cpu_ratio;
  for (int round = 0; round < rounds; ++round) {
    const double cpu = cpu_seconds_of([&] { bare.push_back(seconds_of([&] { training.bare(); })); });
    cpu_ratio.push_back(cpu_seconds_of([&] { training.step(); }) / cpu);
    probe.push_back(training.probe_seconds());
    update.push_back(training.update_seconds());
    ratio.push_back((probe.back() + update.back()) / bare.back());
  }
  const std::string name = fmt::format("{} {}", path.filename().string(), method);
  fmt::print(
      R"({{"bench": "spsa", "case": "{}", "machine": "{}", "threads": {}, "rows": {}, "sequence_length": {}, "trained": {}, )"
      R"("two_forward_ms": {:.2f}, "probe_ms": {:.2f}, "update_ms": {:.2f}, "step_over_two_forward": {:.3f}, "in_cpu_time": {:.3f}, )"
      R"("pool_bytes": {}, "copies_bytes": {}, "arena_bytes": {}, "inference_arena_bytes": {}}})"
      "\n",
      name, bench::machine(), threads, rows.count, rows.length, training.trained(), 1e3 * median(bare),
      1e3 * median(probe), 1e3 * median(update), median(ratio), median(cpu_ratio), training.pool_bytes(),
      training.extra_bytes(), training.probe_bytes(), training.inference_bytes());
  const uint32_t logged = training.trained() > 20'000'000 ? 8 : 500;
  const Training::Replay r = training.replay_log(logged, median(probe));
  fmt::print(
      R"({{"bench": "spsa", "case": "{}, log of {} rounds, 16 machines x 16 probes", "threads": {}, "round_ms": {:.1f}, )"
      R"("replay_ms": {:.3f}, "replay_over_training": {:.1f}, "log_bytes_per_vote": {:.3f}}})"
      "\n",
      name, r.rounds, threads, 1e3 * r.round_seconds, 1e3 * r.replay_seconds, r.round_seconds / r.replay_seconds,
      r.bytes_per_vote);
  std::fflush(stdout);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  using tessera::run;
  namespace fs = std::filesystem;
  tessera::shorten_thread_spinning(argv);
  const int threads = tessera::bench::threads_from(argc, argv), rounds = argc > 2 ? std::atoi(argv[2]) : 15;
  const tessera::Rows rows{argc > 3 ? std::atoi(argv[3]) : 8, argc > 4 ? std::atoi(argv[4]) : 64};
  for (const char* method : {"lora", "mos", "full"})
    run(fs::path(TESSERA_SOURCE_DIR) / "recipes/world/base", method, rows, threads, rounds);
  if (const char* smollm2 = std::getenv("TESSERA_SMOLLM2"))
    for (const char* method : {"lora", "mos", "full"}) run(smollm2, method, rows, threads, rounds);
}
