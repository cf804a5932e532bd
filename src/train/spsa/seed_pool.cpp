// The state twice over: S_k by direction, which is small and goes into snapshots, and Σ_k S_k z_k by weight, which a
// vote changes in one pass. Both are integers modulo 2^64, so that each follows from the other exactly.

#include "train/spsa/seed_pool.h"

#include <algorithm>
#include <cmath>

#include "core/device/memory.h"
#include "core/direction.h"
#include "core/error.h"

namespace tessera {
namespace {

constexpr int kFraction = 48;        // bits behind the point of the sums
constexpr int64_t kChunk = 1 << 16;  // weights whose votes are summed at once
constexpr size_t kBlock = 128;       // signs that sign_block draws; slots are aligned to as many weights

/// x + y modulo 2^64: sums of parts may wrap where the sum of all does not.
int64_t wrapping_add(int64_t x, uint64_t y) { return static_cast<int64_t>(static_cast<uint64_t>(x) + y); }

}  // namespace

SeedPool::SeedPool(uint64_t seed, int64_t directions, FlatParams& params)
    : seed_(seed), params_(params), sums_(static_cast<size_t>(directions)) {
  const OnHost host(params.values);
  const auto values = host.as<float>();
  start_.assign(values.begin(), values.end());
  weighted_.assign(values.size(), 0);
}

bool SeedPool::add(const Context& ctx, const VoteGroup& group) {
  // alpha in steps of 2^-48. Rounded once, here: what follows is exact.
  const double steps = std::rint(std::ldexp(static_cast<double>(group.alpha), kFraction));
  if (!(std::abs(steps) < 0x1p62)) return false;
  const auto alpha = static_cast<int64_t>(steps);
  if (!add_to_sums(alpha, group.votes)) return false;
  add_to_weights(ctx, alpha, group);
  return true;
}

bool SeedPool::add_to_sums(int64_t alpha, std::span<const VoteTerm> votes) {
  for (const VoteTerm& vote : votes) {
    int64_t step = 0;
    int64_t& sum = sums_[vote.sample];
    // These sums may not wrap: where one would, the caller stops the run.
    if (__builtin_mul_overflow(alpha, int64_t{vote.value}, &step) || __builtin_add_overflow(sum, step, &sum))
      return false;
  }
  return true;
}

/// The same addition for every weight: Σ alpha · value · z, from the integer sums that the vote kernel gives. Wrapping
/// is allowed: the total Σ_k S_k z_k modulo 2^64 is the same in any order.
void SeedPool::add_to_weights(const Context& ctx, int64_t alpha, const VoteGroup& group) {
  const Tensor votes({kChunk}, DType::i32, ctx.device);
  for (const TrainableSlot& slot : params_.slots)
    for (int64_t done = 0; done < slot.shape.count(); done += kChunk) {
      const int64_t begin = slot.begin + done, count = std::min(kChunk, slot.shape.count() - done);
      const TensorView chunk = votes.view().slice_rows(0, count);
      vote_sum(ctx, begin, group, chunk);
      const OnHost host(chunk);
      const auto sum = host.as<int32_t>();
      for (int64_t i = 0; i < count; ++i)
        weighted_[begin + i] =
            wrapping_add(weighted_[begin + i], static_cast<uint64_t>(alpha) * static_cast<uint64_t>(int64_t{sum[i]}));
    }
}

void SeedPool::write_values() const {
  const WrittenOnHost host(params_.values);  // the gaps between slots are zero on either side
  const auto values = host.as<float>();
  for (const TrainableSlot& slot : params_.slots)
    for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); ++p)
      // In f64 and rounded to f32 once, from the start values: an error of one round is not carried on into the next.
      values[p] = static_cast<float>(std::fma(std::ldexp(1.0, -kFraction) * slot.step_scale,
                                              static_cast<double>(weighted_[p]), static_cast<double>(start_[p])));
}

void SeedPool::restore(std::vector<int64_t> sums) {
  TS_CHECK(sums.size() == sums_.size(), "{} sums of a seed pool of {}", sums.size(), sums_.size());
  sums_ = std::move(sums);
  std::fill(weighted_.begin(), weighted_.end(), 0);
  for (size_t k = 0; k < sums_.size(); ++k) {
    if (sums_[k] == 0) continue;
    // As the votes had it: the fixed directions are of round 0, and their number is the sample.
    const Direction z{.seed = seed_, .round = 0, .machine = kSeedPoolStream, .sample = static_cast<uint16_t>(k)};
    const auto plus = static_cast<uint64_t>(sums_[k]);
    for (size_t block = 0; block * kBlock < weighted_.size(); ++block) {
      const auto words = sign_block(z, block);
      for (size_t i = 0; i < kBlock; ++i) {
        int64_t& weight = weighted_[block * kBlock + i];
        // Set bits are minus signs.
        weight = wrapping_add(weight, words[i / 32] >> (i % 32) & 1 ? 0 - plus : plus);
      }
    }
  }
  write_values();
}

int64_t SeedPool::state_bytes() const {
  return static_cast<int64_t>((sums_.size() + weighted_.size()) * sizeof(int64_t) + start_.size() * sizeof(float));
}

}  // namespace tessera
