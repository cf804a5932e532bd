// votes_bench [threads] [backend] [weights]: the arithmetic of shared-seed training on a pool of 10 million weights,
// beside the machine's rate of copying memory.

#include <cstring>

#include "bench/harness.h"
#include "core/error.h"
#include "core/minifloat.h"
#include "kernels/table.h"

namespace tessera::bench {
namespace {

/// `amount` in units, counted once a call.
template <class Work>
void run(const Context& ctx, const std::string& name, int64_t amount, std::string_view unit, Work&& work) {
  report("votes", name, ctx.threads, measure(work, 0.3), 1e-9 * static_cast<double>(amount), unit);
}

std::vector<VoteTerm> make_votes(int64_t count) {
  std::vector<VoteTerm> votes;
  for (int64_t i = 0; i < count; ++i)
    votes.push_back({.machine = static_cast<uint32_t>(i / 16),
                     .sample = static_cast<uint16_t>(i % 16),
                     .value = decode_vote(static_cast<uint8_t>(i * 37 % 127))});
  return votes;
}

void run_updates(const Context& ctx, int64_t weights) {
  const Tensor pool = random_tensor({weights}, 1);
  const auto values = pool.as<float>();
  for (const int64_t count : {1, 8, 64, 256}) {
    const auto votes = make_votes(count);
    const VoteGroup group{.seed = 1, .round = 2, .votes = votes, .alpha = 1e-12f};
    run(ctx, fmt::format("vote_update, {} independent votes", count), weights * count, "G weight-votes/s", [&] {
      vote_update(ctx, values, 0, {&group, 1});
    });
  }
  const auto votes = make_votes(8);
  std::vector<VoteGroup> rounds;
  for (uint32_t round = 0; round < 64; ++round)
    rounds.push_back({.seed = 1, .round = round, .votes = votes, .alpha = 1e-12f});
  run(ctx, "vote_update, 64 rounds of 8 votes at once", weights * 8 * 64, "G weight-votes/s",
      [&] { vote_update(ctx, values, 0, rounds); });
}

void run_hadamard(const Context& ctx, int64_t weights) {
  const Tensor pool = random_tensor({weights}, 1);
  std::vector<int32_t> q(4096);
  for (size_t i = 0; i < q.size(); ++i) q[i] = static_cast<int32_t>(i % 601) - 300;
  const std::vector<int32_t> start = q;
  run(ctx, "hadamard_transform, K = 4096", 4096, "G integers/s", [&] {
    q = start;
    hadamard_transform(q);
  });
  const VoteGroup group{
      .signs = {.seed = 1, .round = 2, .machine = kHadamardStream}, .transformed = q, .alpha = 1e-12f};
  run(ctx, "vote_update, Hadamard lanes, K = 4096", weights, "G weights/s", [&] {
    vote_update(ctx, pool.as<float>(), 0, {&group, 1});
  });
  const std::vector<VoteGroup> rounds(64, group);
  run(ctx, "vote_update, 64 rounds of Hadamard lanes at once", 64 * weights, "G weights/s",
      [&] { vote_update(ctx, pool.as<float>(), 0, rounds); });
}

void run_perturb(const Context& ctx, int64_t weights) {
  const Tensor pool = random_tensor({weights}, 1), out({weights}, DType::f32), narrow({weights}, DType::bf16);
  convert(ctx, pool.view(), narrow);
  const Direction z{.seed = 1, .round = 2, .machine = 3};
  const Direction lane{.seed = 1, .round = 2, .machine = kHadamardStream, .lane = 1234, .lanes = 4096};
  run(ctx, "perturb f32", 8 * weights, "GB/s", [&] { perturb(ctx, pool.view(), 0, z, 1e-3f, out); });
  run(ctx, "perturb bf16", 6 * weights, "GB/s", [&] { perturb(ctx, narrow.view(), 0, z, 1e-3f, out); });
  run(ctx, "perturb f32, Hadamard lane", 8 * weights, "GB/s", [&] { perturb(ctx, pool.view(), 0, lane, 1e-3f, out); });
  const ConstView cached = pool.view().slice_rows(0, 1 << 15);  // 128 KB, from the second-level cache
  run(ctx, "perturb f32, 32k weights", 8 << 15, "GB/s",
      [&] { perturb(ctx, cached, 0, z, 1e-3f, out.view().slice_rows(0, 1 << 15)); });
  run(ctx, "perturb f32, rows of 576", 8 * 576 * 64, "GB/s", [&] {
    for (int64_t row = 0; row < 64; ++row)
      perturb(ctx, pool.view().slice_rows(row * 576, row * 576 + 576), row * 576, z, 1e-3f,
              out.view().slice_rows(row * 576, row * 576 + 576));
  });
  run(ctx, "state_digest", weights, "G weights/s", [&] { state_digest(ctx, pool.as<float>(), 0); });
  run(ctx, "add, with the traffic of perturb", 8 * weights, "GB/s", [&] { add(ctx, pool.view(), out); });
  run(ctx, "memcpy", 8 * weights, "GB/s",
      [&] { std::memcpy(out.as<float>().data(), pool.as<float>().data(), static_cast<size_t>(4 * weights)); });
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  Arena scratch(int64_t{1} << 20);
  const Context ctx{.device = {},
                    .stream = {},
                    .kernels = kernels_for({}, argc > 2 ? argv[2] : ""),
                    .scratch = scratch,
                    .threads = bench::threads_from(argc, argv)};
  const int64_t weights = argc > 3 ? std::atoll(argv[3]) : 10'000'000;
  bench::run_updates(ctx, weights);
  bench::run_hadamard(ctx, weights);
  bench::run_perturb(ctx, weights);
}
