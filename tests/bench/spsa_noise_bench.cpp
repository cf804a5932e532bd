// The noise floor of a projected gradient: g of the same direction and rows, computed in other ways, beside the spread
// of g over directions and rows. What the ways differ by is rounding alone: all rows in one pass, a row a pass,
// and the reference kernels (f64 sums).
//
//   spsa_noise_bench [probes]
//
// Models: the repository's, and the one that TESSERA_SMOLLM2 names (without the reference kernels, which are slow).

#include <cmath>
#include <filesystem>

#include "bench/harness.h"
#include "core/error.h"
#include "core/thread_waiting.h"
#include "kernels/table.h"
#include "train/backprop.h"
#include "train/spsa/prober.h"
#include "train/spsa/spsa_inputs.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kRows = 4, kLength = 32;

/// Rows [begin, end) of a batch of one-document rows.
PackedBatch rows_of(const PackedBatch& all, int64_t begin, int64_t end) {
  PackedBatch part;
  part.rows = end - begin;
  part.sequence_length = all.sequence_length;
  const auto cut = [&](const auto& from, auto& to) {
    to.assign(from.begin() + begin * kLength, from.begin() + end * kLength);
  };
  cut(all.ids, part.ids), cut(all.positions, part.positions), cut(all.labels, part.labels),
      cut(all.draw_index, part.draw_index);
  for (int64_t row = 0; row < part.rows; ++row) part.documents.push_back({row * kLength, (row + 1) * kLength});
  return part;
}

PackedBatch random_batch(uint64_t seed, int64_t vocab) {
  PackedBatch batch = widest_batch(kRows, kLength, kLength);
  const RandomStream random(seed, 0);
  for (size_t t = 0; t < batch.ids.size(); ++t) {
    batch.ids[t] = static_cast<int32_t>(random.bits(t) % static_cast<uint32_t>(vocab));
    batch.positions[t] = static_cast<int32_t>(static_cast<int64_t>(t) % kLength);
    batch.labels[t] = static_cast<int32_t>(random.bits(t + 1) % static_cast<uint32_t>(vocab));
  }
  return batch;
}

void measure(const std::string& name, const fs::path& path, const std::string& method, bool with_reference,
             int probes) {
  Model::Settings settings;
  settings.model.path = path;
  settings.adapter.method = method == "full" ? "none" : method;
  settings.adapter.rank = 8;
  settings.train_base = method == "full";
  settings.gradients = false;
  settings.max_position = kLength;
  Model model(settings);
  const auto prober = make_prober({}, model);
  Arena arena(prober->plan_bytes(kRows, kLength, 2) * 2 + (64 << 20));
  const Context cpu{.device = {}, .stream = {}, .kernels = kernels_for({}), .scratch = arena, .threads = 2};
  const Context plain{
      .device = {}, .stream = {}, .kernels = kernels_for({}, "reference"), .scratch = arena, .threads = 1};
  for (const double eps : {1e-2, 1e-3, 1e-4}) {
    double mean = 0, squares = 0, split = 0, kernels = 0;
    for (int s = 0; s < probes; ++s) {
      const Direction z{.seed = 1, .round = static_cast<uint32_t>(s), .machine = 0, .sample = 0};
      const auto e = static_cast<float>(eps);
      const std::vector<Point> points{{z, e}, {z, -e}};
      const PackedBatch all = random_batch(static_cast<uint64_t>(s) + 1, model.config().vocab_size);
      std::vector<PackedBatch> parts;
      for (int64_t row = 0; row < kRows; ++row) parts.push_back(rows_of(all, row, row + 1));
      const auto gradient = [&](const Context& ctx, std::span<const PackedBatch> batches) {
        model.assemble(ctx);
        const auto sums = prober->losses(ctx, batches, points);
        return (sums[0]["nll"] - sums[1]["nll"]) / sums[0]["scored"] / (2 * static_cast<double>(e));
      };
      const double g = gradient(cpu, {&all, 1});
      mean += g / probes;
      squares += g * g / probes;
      split = std::max(split, std::abs(gradient(cpu, parts) - g));
      if (with_reference) kernels = std::max(kernels, std::abs(gradient(plain, {&all, 1}) - g));
    }
    const double sigma = std::sqrt(squares - mean * mean);
    fmt::print("{}\n", Json::object()
                           .set("bench", "spsa_noise")
                           .set("model", name)
                           .set("trained", method)
                           .set("eps", eps)
                           .set("sigma", sigma)
                           .set("largest_split_share", split / sigma)
                           .set("largest_kernel_share", kernels / sigma)
                           .dump());
  }
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  using namespace tessera;
  const int probes = argc > 1 ? std::atoi(argv[1]) : 16;
  for (const char* method : {"lora", "full"})
    measure("base", fs::path(TESSERA_SOURCE_DIR) / "recipes/world/base", method, true, probes);
  if (const char* folder = std::getenv("TESSERA_SMOLLM2"))
    for (const char* method : {"lora", "full"}) measure("smollm2", folder, method, false, probes);
}
