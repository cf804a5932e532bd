// Orthogonal directions of a round: the transform of their votes, and the sums that come of it.

#include "core/error.h"
#include "vote_samples.h"

namespace tessera::test {
namespace {

class HadamardOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(HadamardOnCpu);

TEST(HadamardTransform, IsTheProductWithTheWalshMatrix) {
  for (const size_t size : {1, 2, 4, 8, 64, 256}) {
    std::vector<int32_t> q(size);
    for (size_t k = 0; k < size; ++k) q[k] = static_cast<int32_t>(k * k % 97) - 40;
    std::vector<int32_t> want(size);
    for (size_t i = 0; i < size; ++i)
      for (size_t k = 0; k < size; ++k) want[i] += std::popcount(i & k) % 2 == 1 ? -q[k] : q[k];
    hadamard_transform(q);
    ASSERT_EQ(q, want) << size;
  }
}

TEST(HadamardTransform, RefusesOtherLengthsAndOverflow) {
  std::vector<int32_t> three(3), none, large(2, 1 << 30);
  EXPECT_THROW(hadamard_transform(three), InternalError);
  EXPECT_THROW(hadamard_transform(none), InternalError);
  EXPECT_THROW(hadamard_transform(large), InternalError);
}

TEST_P(HadamardOnCpu, LanesAreTheSumOverTheirDirections) {
  const Direction signs{.seed = kSeed, .round = 9, .machine = kHadamardStream, .sample = 2};
  for (const uint32_t lanes : {1u, 2u, 8u, 32u, 64u, 128u, 512u}) {
    std::vector<int32_t> q(lanes);
    for (uint32_t k = 0; k < lanes; ++k) q[k] = static_cast<int32_t>(k * 7919 % 1001) - 500;
    const std::vector<int32_t> votes = q;
    hadamard_transform(q);
    std::vector<int32_t> sum(700);
    vote_sum(On("cpu"), 1001, {.signs = signs, .transformed = q}, sum);
    for (size_t i = 0; i < sum.size(); i += 13) {
      int32_t want = 0;
      Direction z = signs;
      z.lanes = lanes;
      for (z.lane = 0; z.lane < lanes; ++z.lane) want += votes[z.lane] * sign_at(z, 1001 + i);
      ASSERT_EQ(sum[i], want) << lanes << " lanes, weight " << 1001 + i;
    }
  }
}

}  // namespace
}  // namespace tessera::test
