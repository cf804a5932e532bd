// Exact sums of a pool of directions, and the weights that follow from them.

#include "train/spsa/seed_pool.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/direction.h"
#include "train/spsa/replicas.h"

namespace tessera {
namespace {

using namespace test;

constexpr uint64_t kSeed = 77;
constexpr int64_t kDirections = 5;

VoteGroup group_of(float alpha, const std::vector<VoteTerm>& votes) {
  return {.seed = kSeed, .round = 0, .votes = votes, .alpha = alpha};
}
VoteTerm vote(uint16_t direction, int32_t value) {
  return {.machine = kSeedPoolStream, .sample = direction, .value = value};
}

TEST(SeedPool, MovesEachWeightBySumsAlongTheDirections) {
  OwnPool start, own;
  const OwnContext context;
  SeedPool pool(kSeed, kDirections, own.params());
  const std::vector<VoteTerm> first = {vote(0, 40), vote(3, -7), vote(0, 2)}, second = {vote(4, 1000)};
  ASSERT_TRUE(pool.add(context.ctx, group_of(0x1p-10f, first)));
  ASSERT_TRUE(pool.add(context.ctx, group_of(-0x1p-12f, second)));
  EXPECT_EQ(own.bytes(), start.bytes()) << "before write_values";
  pool.write_values();
  const int64_t one = int64_t{1} << 38;  // 2^-10 in steps of 2^-48
  const std::vector<int64_t> sums = {42 * one, 0, 0, -7 * one, -250 * one};
  EXPECT_TRUE(std::equal(sums.begin(), sums.end(), pool.sums().begin(), pool.sums().end()));
  for (const TrainableSlot& slot : own.params().slots)
    for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); ++p) {
      double along = 0;
      for (uint16_t k = 0; k < kDirections; ++k) {
        const Direction z{.seed = kSeed, .round = 0, .machine = kSeedPoolStream, .sample = k};
        along += std::ldexp(static_cast<double>(sums[k]), -48) * sign_at(z, static_cast<uint64_t>(p));
      }
      const auto w = static_cast<double>(start.params().values.as<float>()[p]);
      ASSERT_EQ(own.params().values.as<float>()[p], static_cast<float>(w + slot.step_scale * along)) << p;
    }
}

TEST(SeedPool, IsRestoredFromItsSumsToTheSameBits) {
  OwnPool own, joined;
  const OwnContext context;
  SeedPool pool(kSeed, kDirections, own.params()), other(kSeed, kDirections, joined.params());
  for (int i = 0; i < 20; ++i) {
    const std::vector<VoteTerm> votes = {vote(static_cast<uint16_t>(i % 5), 3 * i - 20), vote(2, i)};
    ASSERT_TRUE(pool.add(context.ctx, group_of(1e-3f / static_cast<float>(i + 1), votes)));
  }
  pool.write_values();
  other.restore({pool.sums().begin(), pool.sums().end()});
  EXPECT_EQ(joined.bytes(), own.bytes());
  EXPECT_EQ(other.state_bytes(), pool.state_bytes());
  EXPECT_THROW(other.restore({1, 2}), InternalError);
}

TEST(SeedPool, SaysWhenASumLeavesItsBits) {
  OwnPool own;
  const OwnContext context;
  SeedPool pool(kSeed, kDirections, own.params());
  const std::vector<VoteTerm> votes = {vote(1, 1 << 20)};
  EXPECT_FALSE(pool.add(context.ctx, group_of(0x1p14f, votes))) << "alpha alone";
  EXPECT_FALSE(pool.add(context.ctx, group_of(std::nanf(""), votes)));
  EXPECT_FALSE(pool.add(context.ctx, group_of(1, votes))) << "one product";
  EXPECT_TRUE(pool.add(context.ctx, group_of(0x1p-6f, votes)));
  EXPECT_FALSE(pool.add(context.ctx, group_of(0x1p-6f, votes))) << "a sum of two";
}

}  // namespace
}  // namespace tessera
