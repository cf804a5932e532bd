#include "kernels/votes.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "core/error.h"
#include "core/minifloat.h"
#include "harness.h"
#include "kernels/votes_exact.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace tessera::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr uint64_t kSeed = 0x1234567855aa55aa;

float from_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

std::vector<uint32_t> bits_of(std::span<const float> values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

bool equal_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

class VotesOnCpu : public OnEachInstructionSet {};
TESSERA_ON_EACH_INSTRUCTION_SET(VotesOnCpu);

std::vector<VoteTerm> make_votes(int64_t count, uint64_t seed) {
  const RandomStream random(seed, 5);
  std::vector<VoteTerm> votes;
  for (int64_t i = 0; i < count; ++i) {
    const auto draw = static_cast<uint64_t>(i);
    votes.push_back({.machine = random.bits(3 * draw) % 0xffffff00u,
                     .sample = static_cast<uint16_t>(random.bits(3 * draw + 1)),
                     .value = decode_vote(static_cast<uint8_t>(random.bits(3 * draw + 2)))});
  }
  return votes;
}

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

/// Ordinary weights between denormals, zeros of both signs and the largest numbers.
std::vector<float> make_weights(int64_t count, uint64_t seed) {
  const RandomStream random(seed, 6);
  std::vector<float> weights(static_cast<size_t>(count));
  for (size_t i = 0; i < weights.size(); ++i) {
    const uint32_t bits = random.bits(i), sign = bits & 0x80000000u;
    switch (bits % 8) {
      case 0:
      case 1:
        weights[i] = from_bits(sign | (bits >> 8 & 0x7fffff));  // denormal
        break;
      case 2:
        weights[i] = from_bits(sign);
        break;
      case 3:
        weights[i] = from_bits(sign | (0x7f7fffff - (bits >> 8 & 0xff)));  // the largest
        break;
      default:
        weights[i] = static_cast<float>(0.02 * (2.0 * random.uniform(i) - 1));
    }
  }
  return weights;
}

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

#if defined(__SANITIZE_ADDRESS__)
constexpr int64_t kWeights = 30000;  // more than a run of blocks; the plain loops are slow under sanitizers
#else
constexpr int64_t kWeights = 1000000;
#endif

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

// ---- Hadamard lanes

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

TEST_P(VotesOnCpu, HadamardLanesAreTheSumOverTheirDirections) {
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

// ---- perturb

const std::vector<Direction> kDirections{
    {.seed = kSeed, .round = 2, .machine = 1, .sample = 7},
    {.seed = 1, .round = 2, .machine = kHadamardStream, .lane = 5, .lanes = 8},
    {.seed = 1, .round = 3, .machine = kHadamardStream, .lane = 777, .lanes = 4096}};

TEST(Perturb, AddsTheScaledSignsRoundedOnce) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Matrix values = Matrix::random(1, 300, dtype, 1), out(1, 300, dtype, 3);
    perturb(On("reference"), values.vector(), 1000, kDirections[0], 0.001f, out.vector());
    for (int64_t i = 0; i < 300; ++i) {
      const double want = values.at(0, i) + static_cast<double>(0.001f) * sign_at(kDirections[0], 1000 + i);
      ASSERT_EQ(out.at(0, i), dtype == DType::f32 ? static_cast<float>(want) : want);
    }
  }
}

TEST_P(VotesOnCpu, PerturbHasTheBitsOfTheReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const int64_t n : {1, 3, 64, 127, 128, 129, 576, 2048, 2049, 40001}) {
      const Matrix values = Matrix::random(1, n, dtype, 1);
      for (const int64_t first : {int64_t{0}, int64_t{1}, int64_t{127}, int64_t{5000}, (int64_t{1} << 39) - 100}) {
        for (const Direction& z : kDirections) {
          const Matrix want(1, n, DType::f32), got(1, n, DType::f32, 9);
          perturb(On("reference"), values.vector(), first, z, -0.0125f, want.vector());
          perturb(On("cpu", 2), values.vector(), first, z, -0.0125f, got.vector());
          ASSERT_TRUE(got.equals_bitwise(want)) << name_of(dtype) << ", " << n << " from " << first;
          ASSERT_TRUE(got.is_padding_untouched());
        }
      }
    }
  }
}

TEST_P(VotesOnCpu, PerturbKeepsDenormals) {
  const auto values = make_weights(4000, 5);
  std::vector<float> want(values.size()), got(values.size());
  const ConstView in(values.data(), {4000}, DType::f32);
  perturb(On("reference"), in, 3, kDirections[0], 3e-40f, view_of(std::span(want), {4000}));
  perturb(On("cpu"), in, 3, kDirections[0], 3e-40f, view_of(std::span(got), {4000}));
  EXPECT_TRUE(equal_bits(got, want));
}

TEST(Perturb, NeverWritesTheWeights) {
  std::vector<float> memory(20);
  const ConstView values(memory.data(), {10}, DType::f32);
  const auto into = [&](int64_t begin) { return TensorView(memory.data() + begin, {10}, DType::f32); };
  EXPECT_THROW(perturb(On("cpu"), values, 0, {}, 1, into(0)), InternalError);
  EXPECT_THROW(perturb(On("cpu"), values, 0, {}, 1, into(9)), InternalError);
  EXPECT_NO_THROW(perturb(On("cpu"), values, 0, {}, 1, into(10)));
}

// ---- digest

const std::vector<float> kFew{1, -2, -0.0f, from_bits(1), from_bits(0x7f7fffff)};

TEST(StateDigest, IsTheGoldenOne) {
  // Computed with Python's integers from the formula.
  EXPECT_EQ(state_digest(On("reference"), kFew, 0).text(), "6c371826a41d4da3bdafebf39a823940");
  EXPECT_EQ(state_digest(On("reference"), std::span(kFew).first(1), (int64_t{1} << 40) + 3).text(),
            "88cea1c6d8dbd375d38b879352919809");
}

TEST_P(VotesOnCpu, DigestIsThatOfTheReference) {
  for (const int64_t n : {0, 1, 5, 63, 64, 65, 200, 100001}) {
    const auto weights = make_weights(n, 7);
    for (const int64_t first : {int64_t{0}, int64_t{12345}, (int64_t{1} << 54)}) {
      const StateDigest want = state_digest(On("reference"), weights, first);
      for (const int threads : {1, 3}) ASSERT_EQ(state_digest(On("cpu", threads), weights, first), want) << n;
    }
  }
}

TEST_P(VotesOnCpu, DigestsOfPartsAddUp) {
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
  std::vector<float> weights(10);
  const VoteGroup group;
  const unsigned before = _mm_getcsr();
  for (const unsigned flags : {0x8000u, 0x0040u, 0x2000u}) {  // FTZ, DAZ, rounding down
    _mm_setcsr(before | flags);
    const bool is_exact = has_exact_rounding();
    EXPECT_THROW(vote_update(On("cpu"), weights, 0, {&group, 1}), InternalError);
    _mm_setcsr(before);
    EXPECT_FALSE(is_exact) << flags;
  }
}
#endif

}  // namespace
}  // namespace tessera::test
