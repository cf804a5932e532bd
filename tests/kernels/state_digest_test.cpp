// The digest that tells whether two replicas hold the same bits.

#include <numeric>

#include "vote_samples.h"

namespace tessera::test {
namespace {

class StateDigestOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(StateDigestOnCpu);

const std::vector<float> kFew{1, -2, -0.0f, from_bits(1), from_bits(0x7f7fffff)};

TEST(StateDigest, IsTheGoldenOne) {
  // Computed with Python's integers from the formula.
  EXPECT_EQ(state_digest(On("reference"), kFew, 0).text(), "6c371826a41d4da3bdafebf39a823940");
  EXPECT_EQ(state_digest(On("reference"), std::span(kFew).first(1), (int64_t{1} << 40) + 3).text(),
            "88cea1c6d8dbd375d38b879352919809");
}

TEST_P(StateDigestOnCpu, IsThatOfTheReference) {
  for (const int64_t n : {0, 1, 5, 63, 64, 65, 200, 100001}) {
    const auto weights = make_weights(n, 7);
    for (const int64_t first : {int64_t{0}, int64_t{12345}, (int64_t{1} << 54)}) {
      const StateDigest want = state_digest(On("reference"), weights, first);
      for (const int threads : {1, 3}) ASSERT_EQ(state_digest(On("cpu", threads), weights, first), want) << n;
    }
  }
}

TEST_P(StateDigestOnCpu, OfPartsAddUp) {
  const auto weights = make_weights(50000, 7);
  const std::span<const float> all = weights;
  StateDigest sum;
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{30001, 50000}, {0, 7}, {7, 30001}})
    sum += state_digest(On("cpu"), all.subspan(begin, end - begin), begin);
  EXPECT_EQ(sum, state_digest(On("cpu"), all, 0));
}

TEST(StateDigest, EveryBitOfEveryWeightCounts) {
  const On cpu("cpu");
  auto weights = make_weights(300, 7);
  const StateDigest before = state_digest(cpu, weights, 0);
  for (float& weight : weights) {
    const float kept = weight;
    for (int bit = 0; bit < 32; ++bit) {
      weight = from_bits(std::bit_cast<uint32_t>(kept) ^ 1u << bit);
      const StateDigest after = state_digest(cpu, weights, 0);
      ASSERT_NE(after.sum, before.sum);
      ASSERT_NE(after.check, before.check);
    }
    weight = kept;
  }
}

TEST(StateDigest, PlacesCount) {
  const On cpu("cpu");
  std::vector<float> weights(100);
  std::iota(weights.begin(), weights.end(), 1.0f);
  const StateDigest before = state_digest(cpu, weights, 0);
  std::swap(weights[17], weights[80]);
  EXPECT_FALSE(state_digest(cpu, weights, 0) == before);
  std::swap(weights[17], weights[80]);
  EXPECT_TRUE(state_digest(cpu, weights, 0) == before);
  EXPECT_FALSE(state_digest(cpu, weights, 1) == before);
}

}  // namespace
}  // namespace tessera::test
