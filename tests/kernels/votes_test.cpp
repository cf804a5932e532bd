#include "kernels/votes.h"
#include "kernels/rounding.h"

#include "core/error.h"
#include "kernels/votes_exact.h"
#include "support/sanitizer.h"
#include "vote_samples.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace tessera::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::vector<uint32_t> bits_of(std::span<const float> values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

class VotesOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(VotesOnCpu);

std::vector<int32_t> make_transformed(int64_t count, uint64_t seed) {
  std::vector<int32_t> q(static_cast<size_t>(count));
  const auto votes = make_votes(count, seed);
  for (size_t i = 0; i < q.size(); ++i) q[i] = votes[i].value % 1024;
  hadamard_transform(q);
  return q;
}

// ---- golden values: any implementation that replays the same log has them

void expect_golden_update(const Context& ctx) {
  // The bytes are votes of 288, -104 and 20. The machines' signs of weights 0 to 3, by Philox: ----, -+--, -+--. So the
  // sums are -288 + 104 - 20 = -204, and at weight 1 -288 - 104 + 20 = -372. alpha times these is 0.00104 and 0.00189.
  const std::vector<VoteTerm> votes{{1, 0, decode_vote(0x31)}, {2, 0, decode_vote(0xa5)}, {5, 0, decode_vote(0x12)}};
  const VoteGroup group{.seed = kSeed, .round = 2, .votes = votes, .alpha = from_bits(0xb6aaaaab)};
  std::vector<int32_t> sum(4);
  vote_sum(ctx, 0, group, sum);
  EXPECT_THAT(sum, ElementsAre(-204, -372, -204, -204));
  std::vector<float> weights{from_bits(0x3f000000), from_bits(0xbe800000), from_bits(0x3eaaaaab),
                             from_bits(0x3a83126f)};
  vote_update(ctx, weights, 0, {&group, 1});
  EXPECT_THAT(bits_of(weights), ElementsAre(0x3f004400u, 0xbe7e1000u, 0x3eab32abu, 0x3b058938u));
}

void expect_golden_lanes(const Context& ctx) {
  // Row i of the Walsh matrix times q: 60 + 10 - 13 - 3 = 54 for row 0, in which all signs are +. The signs D of the
  // round are --++-++- at weights 0 to 7.
  std::vector<int32_t> q{60, -13, 0, 0, 0, 10, 0, -3};
  hadamard_transform(q);
  EXPECT_THAT(q, ElementsAre(54, 66, 60, 60, 40, 80, 34, 86));
  const VoteGroup group{.signs = {.seed = kSeed, .round = 2, .machine = kHadamardStream}, .transformed = q};
  std::vector<int32_t> sum(8);
  vote_sum(ctx, 0, group, sum);
  EXPECT_THAT(sum, ElementsAre(-54, -66, 60, 60, -40, 80, 34, -86));
}

TEST(Votes, GiveTheGoldenUpdateInPlainLoops) {
  expect_golden_update(On("reference"));
  expect_golden_lanes(On("reference"));
}

TEST_P(VotesOnCpu, GiveTheGoldenUpdate) {
  expect_golden_update(On("cpu"));
  expect_golden_lanes(On("cpu"));
}

// ---- the same bits, however it is computed

/// Rounds of all kinds; votes fill a tile and a bit of the next.
struct Rounds {
  std::vector<VoteTerm> many = make_votes(35, 1), few = make_votes(3, 2);
  std::vector<int32_t> narrow = make_transformed(16, 3), wide = make_transformed(1024, 4);
  std::vector<VoteGroup> groups;

  /// Steps of about `scale` per weight.
  explicit Rounds(float scale) {
    groups.push_back({.seed = kSeed, .round = 2, .votes = many, .alpha = -1e-6f * scale});
    groups.push_back({.signs = {.seed = kSeed, .round = 3, .machine = kHadamardStream, .sample = 1},
                      .transformed = narrow,
                      .alpha = 1e-4f * scale,
                      .mul = 0.999f});
    groups.push_back({.seed = ~kSeed, .round = ~0u, .votes = few, .alpha = 3e-6f * scale, .mul = 1.0001f});
    groups.push_back({.seed = kSeed, .round = 4, .votes = {}, .alpha = 1, .mul = 0.9999f});  // a round without votes
    groups.push_back({.signs = {.seed = kSeed, .round = 5, .machine = kHadamardStream},
                      .transformed = wide,
                      .alpha = -1e-5f * scale});
  }
};

// Steps among the denormals, of the usual size, and up to infinity.
constexpr float kScales[] = {1e-38f, 1e-4f, 1e38f};

struct Expected {
  std::vector<float> start, end;
};

/// The plain loops are slow under sanitizers; the smaller number is more than a run of blocks.
const int64_t kWeights = test::is_address_sanitized() ? 30000 : 1000000;

/// So many weights after the rounds, in plain loops; computed once.
const Expected& expected(size_t scale) {
  static const auto kAll = [] {
    std::vector<Expected> all;
    for (const float s : kScales) {
      all.push_back({.start = make_weights(kWeights, 9), .end = {}});
      all.back().end = all.back().start;
      vote_update(On("reference"), all.back().end, 0, Rounds(s).groups);
    }
    return all;
  }();
  return kAll[scale];
}

TEST_P(VotesOnCpu, AMillionWeightsHaveTheBitsOfTheReferenceForAnyNumberOfThreads) {
  for (size_t scale = 0; scale < std::size(kScales); ++scale) {
    const Rounds rounds(kScales[scale]);
    for (const int threads : {1, 2, 16}) {
      std::vector<float> weights = expected(scale).start;
      vote_update(On("cpu", threads), weights, 0, rounds.groups);
      ASSERT_TRUE(equal_bits(weights, expected(scale).end))
          << "scale " << kScales[scale] << ", " << threads << " threads";
    }
  }
}

TEST_P(VotesOnCpu, RoundsOneByOneGiveTheBitsOfAllAtOnce) {
  const Rounds rounds(kScales[0]);
  std::vector<float> weights = expected(0).start;
  for (const VoteGroup& group : rounds.groups) vote_update(On("cpu"), weights, 0, {&group, 1});
  EXPECT_TRUE(equal_bits(weights, expected(0).end));
}

TEST_P(VotesOnCpu, PartsOfThePoolGiveTheBitsOfTheWhole) {
  const Rounds rounds(kScales[1]);
  std::vector<float> weights = expected(1).start;
  int64_t begin = 0, length = 1;
  while (begin < static_cast<int64_t>(weights.size())) {  // odd pieces, shorter and longer than a run of blocks
    const int64_t n = std::min<int64_t>(length, static_cast<int64_t>(weights.size()) - begin);
    vote_update(On("cpu"), std::span(weights).subspan(begin, n), begin, rounds.groups);
    begin += n;
    length = length < 40000 ? length * 3 / 2 + 2 : 1;
  }
  EXPECT_TRUE(equal_bits(weights, expected(1).end));
}

TEST_P(VotesOnCpu, NeighboursOfAPartStayUntouched) {
  const Rounds rounds(1);
  for (const int64_t n : kLengths) {
    std::vector<float> weights = make_weights(n + 40, 1);
    const std::vector<float> before = weights;
    vote_update(On("cpu"), std::span(weights).subspan(20, n), 77, rounds.groups);
    EXPECT_TRUE(equal_bits(std::span(weights).first(20), std::span(before).first(20)));
    EXPECT_TRUE(equal_bits(std::span(weights).last(20), std::span(before).last(20)));
  }
}

TEST_P(VotesOnCpu, HighWeightsHaveTheBitsOfTheReference) {
  const Rounds rounds(1e-3f);
  for (const int64_t first : {(int64_t{1} << 39) - 1300, (int64_t{1} << 39) + 5, (int64_t{1} << 55) - 5000}) {
    std::vector<float> want = make_weights(5000, 2), got = want;
    vote_update(On("reference"), want, first, rounds.groups);
    vote_update(On("cpu"), got, first, rounds.groups);
    EXPECT_TRUE(equal_bits(got, want)) << first;
  }
}

TEST_P(VotesOnCpu, SumsOfSeveralPassesAddUpToTheGroup) {
  const auto votes = make_votes(300, 8);
  const std::span<const VoteTerm> all = votes;
  const On cpu("cpu", 2), reference("reference");
  const VoteGroup group{.seed = 3, .round = 4, .votes = all, .alpha = 1e-7f};
  std::vector<int32_t> whole(10001), sum(whole.size()), part(whole.size()), plain(whole.size());
  vote_sum(cpu, 3, group, whole);
  vote_sum(reference, 3, group, plain);
  EXPECT_EQ(whole, plain);
  for (const auto& [begin, end] : {std::pair<size_t, size_t>{250, 300}, {0, 1}, {33, 250}, {1, 33}}) {
    vote_sum(cpu, 3, {.seed = 3, .round = 4, .votes = all.subspan(begin, end - begin)}, part);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
  EXPECT_EQ(whole, sum);

  std::vector<float> weights = make_weights(10001, 3), by_sums = weights;
  vote_update(cpu, weights, 3, {&group, 1});
  for (size_t i = 0; i < sum.size(); ++i) by_sums[i] = apply_votes(by_sums[i], 1, group.alpha, sum[i]);
  EXPECT_TRUE(equal_bits(weights, by_sums));
}

TEST_P(VotesOnCpu, TheOrderOfVotesDoesNotShow) {
  auto votes = make_votes(100, 8);
  const VoteGroup group{.seed = 3, .round = 4, .votes = votes, .alpha = 1e-7f};
  std::vector<float> forward = make_weights(3000, 3), backward = forward;
  vote_update(On("cpu"), forward, 0, {&group, 1});
  std::reverse(votes.begin(), votes.end());
  vote_update(On("cpu"), backward, 0, {&group, 1});
  EXPECT_TRUE(equal_bits(forward, backward));
}

TEST_P(VotesOnCpu, TheLargestGroupDoesNotOverflow) {
  // 8192 times the largest vote of one direction: |A| = 2,013,265,920 everywhere.
  const std::vector<VoteTerm> votes(8192, {.machine = 1, .sample = 2, .value = -kLargestVote});
  std::vector<int32_t> sum(200);
  vote_sum(On("cpu"), 0, {.seed = 3, .round = 4, .votes = votes}, sum);
  for (size_t p = 0; p < sum.size(); ++p)
    ASSERT_EQ(sum[p], -8192 * kLargestVote * sign_at({.seed = 3, .round = 4, .machine = 1, .sample = 2}, p));
}

// ---- refusals

TEST(Votes, RefuseWhatTheContractExcludes) {
  const On cpu("cpu");
  std::vector<float> weights(10);
  const std::vector<VoteTerm> votes = make_votes(2, 1), huge(256, {.machine = 1, .sample = 1, .value = 1 << 23});
  const std::vector<int32_t> three(3);
  const auto update = [&](const VoteGroup& group) { return [&, group] { vote_update(cpu, weights, 0, {&group, 1}); }; };
  const auto fails = [](const char* text) { return ThrowsMessage<InternalError>(HasSubstr(text)); };
  EXPECT_THAT(update({.votes = votes, .transformed = std::span(three).first(2)}),
              fails("vote_update: a group of 2 votes and 2 transformed integers"));
  EXPECT_THAT(update({.transformed = three}), fails("3 transformed integers, expected a power of two"));
  EXPECT_THAT(update({.signs = {.lanes = 2}, .transformed = std::span(three).first(2)}),
              fails("signs of 2 lanes, expected 0"));
  EXPECT_THAT(update({.votes = huge}), fails("votes add up to 2147483648, beyond 31 bits"));
  EXPECT_THAT(update({.votes = votes, .alpha = std::numeric_limits<float>::quiet_NaN()}), fails("alpha nan"));
  EXPECT_THAT([&] { vote_update(cpu, weights, -1, {}); }, fails("vote_update: weights -1"));
  EXPECT_THAT([&] { vote_update(cpu, weights, (int64_t{1} << 55) - 9, {}); }, fails("expected 0 .. 2^55"));
}

#if defined(__SSE__)
TEST(Votes, RefuseToFlushDenormals) {
  ASSERT_TRUE(has_exact_rounding());
  ASSERT_NO_THROW(require_exact_rounding(On("cpu", 2)));  // a team that begins now keeps the rounding of its beginning
  std::vector<float> weights(10);
  const VoteGroup group;
  const unsigned before = _mm_getcsr();
  for (const unsigned flags : {0x8000u, 0x0040u, 0x2000u}) {  // FTZ, DAZ, rounding down
    _mm_setcsr(before | flags);
    const bool is_exact = has_exact_rounding();
    EXPECT_THROW(vote_update(On("cpu"), weights, 0, {&group, 1}), InternalError);
    EXPECT_THROW(require_exact_rounding(On("cpu", 2)), UserError);
    _mm_setcsr(before);
    EXPECT_FALSE(is_exact) << flags;
    EXPECT_NO_THROW(require_exact_rounding(On("cpu", 2)));
  }
}
#endif

}  // namespace
}  // namespace tessera::test
