// The state is a pure function of base and records: the same bits for every backend, thread count,
// and way to get there.

#include <gmock/gmock.h>

#include <bit>

#include "core/error.h"
#include "core/minifloat.h"
#include "train/spsa/replicas.h"

namespace tessera {
namespace {

using namespace test;

TEST_P(ReplicaOf, EndsInTheSameBitsOnEveryBackendAndThreadCountAndGrouping) {
  const auto records = rounds(40);
  test::OwnContext cpu, reference("reference");
  const std::string expected = replayed(header(), records, reference.ctx, false);
  for (const int threads : {1, 2, 5, 16}) {
    cpu.ctx.threads = threads;
    EXPECT_TRUE(replayed(header(), records, cpu.ctx, true) == expected) << threads << " threads, rounds together";
    EXPECT_TRUE(replayed(header(), records, cpu.ctx, false) == expected) << threads << " threads, round by round";
  }
  EXPECT_FALSE(replayed(header(), {records.begin(), records.end() - 1}, cpu.ctx, true) == expected);
}

class SteppingReplicaOf : public ReplicaOf {};

TEST_P(SteppingReplicaOf, MovesAlongTheGradientThatTheVotesDescribe) {
  // g = <c, z> for a fixed c: the mean of g z is c, so the state goes to start - lr c for plain steps.
  RunHeader h = header();
  h.clip = 0;
  OwnPool own;
  Replica replica(h, own.params());
  const test::OwnContext context;
  const auto values = own.params().values.as<float>();
  const std::vector<float> start(values.begin(), values.end());
  const auto c_of = [](int64_t p) { return p % 3 == 0 ? 1.0 : 0.0; };
  ChainTip tip;
  const double lr = 2e-4;
  constexpr int kRounds = 400;
  for (int t = 0; t < kRounds; ++t) {
    std::map<uint32_t, Vote> votes;
    for (uint32_t machine = 0; machine < 4; ++machine)
      for (uint16_t s = 0; s < 3; ++s) {
        const Direction z = direction_of(h, replica.round(), machine, machine, s);
        double g = 0;
        for (const TrainableSlot& slot : own.params().slots)
          for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); ++p)
            if (c_of(p) != 0) g += sign_at(z, static_cast<uint64_t>(p));
        write_vote(h, g, replica.unit(), replica.round(), machine, s, votes[machine].bytes);
      }
    const Record record = pack_round(replica, {}, tip, votes, 4, {static_cast<float>(lr), 1});
    tip.advance(encode(record));
    replica.apply(context.ctx, record);
  }
  double along = 0, across = 0;
  int64_t ones = 0, zeros = 0;
  for (const TrainableSlot& slot : own.params().slots)
    for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); ++p) {
      const double moved = (static_cast<double>(values[p]) - static_cast<double>(start[p])) / slot.step_scale;
      (c_of(p) != 0 ? along : across) += moved;
      ++(c_of(p) != 0 ? ones : zeros);
    }
  const double plain = -lr * kRounds / (1 - GetParam().momentum);
  // 64 directions span only a part of the space: what they see of c is c on average over pools.
  const double tolerance = GetParam().family == Family::pool ? 0.35 : 0.15;
  EXPECT_NEAR(along / static_cast<double>(ones), plain, tolerance * std::abs(plain));
  EXPECT_NEAR(across / static_cast<double>(zeros), 0, 0.1 * std::abs(plain));
}

INSTANTIATE_TEST_SUITE_P(Stepping, ReplicaOf, testing::ValuesIn(kStepping), name_of_kind);
INSTANTIATE_TEST_SUITE_P(Others, ReplicaOf, testing::ValuesIn(kOthers), name_of_kind);
INSTANTIATE_TEST_SUITE_P(Kinds, SteppingReplicaOf, testing::ValuesIn(kStepping), name_of_kind);

// An update that every implementation has to reach: a seed, round 2, votes of machines 1, 2, 5.
TEST(Replica, AppliesTheGoldenRecord) {
  OwnPool own;
  RunHeader h = header_of(own);
  h.m = 1;
  Replica replica(h, own.params());
  const test::OwnContext context;
  Record empty;
  empty.lanes = 3;
  empty.m = 1;
  empty.present = {false, false, false};
  empty.roster = {{0, true, 1}, {1, true, 2}, {2, true, 5}};
  replica.apply(context.ctx, empty);
  empty.roster.clear();
  empty.round = empty.seed_round = 1;
  replica.apply(context.ctx, empty);
  const uint32_t before[] = {0x3f000000, 0xbe800000, 0x3eaaaaab, 0x3a83126f};
  const uint32_t after[] = {0x3f004400, 0xbe7e1000, 0x3eab32ab, 0x3b058938};
  const auto values = own.params().values.as<float>();
  for (size_t i = 0; i < 4; ++i) values[i] = std::bit_cast<float>(before[i]);
  Record record = empty;
  record.round = record.seed_round = 2;
  record.present = {true, true, true};
  record.bytes = {0x31, 0xa5, 0x12};
  record.alpha = std::bit_cast<float>(0xb6aaaaabu);
  replica.apply(context.ctx, record);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), after[i]) << i;
}

TEST(Replica, FirstAdamStepGoesAsFarAsTheRateForEveryBeta) {
  OwnPool start, first, newest;
  RunHeader h = header_of(start);
  h.optimizer = "adamw";
  h.beta2 = 0.9999999;
  const test::OwnContext context;
  const auto records = random_rounds(h, start, 1, 1.0f);
  Replica(h, first.params()).apply(context.ctx, records);
  h.rules = Rules::second;
  Replica(h, newest.params()).apply(context.ctx, records);
  for (int64_t i = 0; i < 37 * 11; ++i) {
    const auto moved = [&](OwnPool& to) {
      return std::abs(to.params().values.as<float>()[i] - start.params().values.as<float>()[i]);
    };
    EXPECT_NEAR(moved(newest), 1, 1e-4) << i;  // eps counts beside the smallest gradients
    EXPECT_NEAR(moved(first), 0.916, 1e-3) << i;
  }
}

TEST(Replica, SurvivesInvalidAndSaturatedVotes) {
  OwnPool own;
  RunHeader h = header_of(own);
  h.m = 8;
  Replica replica(h, own.params());
  const test::OwnContext context;
  ChainTip tip;
  for (int t = 0; t < 50; ++t) {
    std::map<uint32_t, Vote> votes;
    votes[0].bytes.assign(8, kInvalidVote);  // its loss is NaN
    votes[1].bytes.assign(8, 0x7f);          // says the largest vote there is, always
    votes[2].bytes.assign(8, 0x11);
    votes[3].bytes.assign(8, 0x92);
    const Record record = pack_round(replica, {}, tip, votes, 4, {1e-3f, 1});
    tip.advance(encode(record));
    replica.apply(context.ctx, record);
    EXPECT_EQ(replica.last().votes, 32);
    EXPECT_EQ(replica.last().valid, 24);
    EXPECT_EQ(replica.last().clipped, 8);
  }
  for (const float w : own.params().values.as<float>()) ASSERT_TRUE(std::isfinite(w));
  EXPECT_EQ(replica.halvings(), 0);
}

TEST(Replica, HalvesTheRateWhenMostVotesAreInvalidAndCountsEmptyRounds) {
  OwnPool own;
  Replica replica(header_of(own), own.params());
  const test::OwnContext context;
  std::map<uint32_t, Vote> votes;
  votes[0].bytes = {kInvalidVote, kInvalidVote, 0x22};
  const Record bad = pack_round(replica, {}, {}, votes, 1, {1e-3f, 1});
  replica.apply(context.ctx, bad);
  EXPECT_EQ(replica.halvings(), 1);
  votes[0].bytes = {0x22, 0x22, 0x22};
  const Record good = pack_round(replica, {}, {}, votes, 1, {1e-3f, 1});
  EXPECT_EQ(good.alpha, -(0.5e-3f * 0x1p-9f) / 3);
  replica.apply(context.ctx, good);
  votes[0].bytes.assign(3, kInvalidVote);
  const Record none = pack_round(replica, {}, {}, votes, 1, {1e-3f, 0.5f});
  EXPECT_EQ(none.alpha, 0);
  EXPECT_EQ(none.mul, 1);
  const std::string before = own.bytes();
  replica.apply(context.ctx, none);
  replica.apply(context.ctx, pack_round(replica, {}, {}, votes, 1, {1e-3f, 1}));
  EXPECT_EQ(replica.empty_rounds(), 2);
  EXPECT_EQ(own.bytes(), before);
}

TEST(Replica, ARoundWithoutAValidVoteHalvesTheRateAsOneWithFewDoesUnlessTheRunBeganBefore) {
  for (const auto& [rules, halvings] : {std::pair{Rules::first, 0}, {Rules::second, 2}}) {
    OwnPool own;
    RunHeader header = header_of(own);
    header.rules = rules;
    Replica replica(header, own.params());
    const test::OwnContext context;
    std::map<uint32_t, Vote> votes;
    votes[0].bytes.assign(3, kInvalidVote);
    const std::string before = own.bytes();
    for (int t = 0; t < 2; ++t) replica.apply(context.ctx, pack_round(replica, {}, {}, votes, 1, {1e-3f, 1}));
    EXPECT_EQ(replica.halvings(), halvings);
    EXPECT_EQ(own.bytes(), before);
    votes[0].bytes = {0x22, 0x22, 0x22};
    const Record good = pack_round(replica, {}, {}, votes, 1, {1e-3f, 1});
    EXPECT_EQ(good.alpha, -(std::ldexp(1e-3f, -halvings) * 0x1p-9f) / 3);
  }
}

TEST(Replica, MovesTheUnitWhenVotesAreTooSmallOrTooLarge) {
  for (const auto& [g, wanted] : {std::pair{1e-4, 19}, {2000.0, -4}, {0.5, 9}}) {
    OwnPool own;
    Replica replica(header_of(own), own.params());
    const test::OwnContext context;
    ChainTip tip;
    double largest_error = 0;
    for (int t = 0; t < 300; ++t) {
      std::map<uint32_t, Vote> votes;
      const int unit = replica.unit();
      for (uint16_t s = 0; s < 3; ++s) write_vote(replica.header(), g, unit, replica.round(), 0, s, votes[0].bytes);
      const Record record = pack_round(replica, {}, tip, votes, 1, {1e-6f, 1});
      tip.advance(encode(record));
      EXPECT_FLOAT_EQ(record.alpha, -1e-6f * std::ldexp(1.0f, -unit) / 3) << "votes keep the unit they were coded in";
      replica.apply(context.ctx, record);
      if (t > 200) largest_error = std::max(largest_error, std::abs(replica.last().vote_rms / g - 1));
    }
    EXPECT_LE(std::abs(replica.unit() - wanted), 4) << g;
    EXPECT_LT(largest_error, 0.13) << g;
  }
}

// An estimate from coded votes is unbiased.
TEST(Replica, TheMeanOfManyCodedEstimatesIsTheGradient) {
  constexpr int64_t kSize = 24;
  constexpr int kDraws = 100000;
  OwnPool own;
  RunHeader h = header_of(own);
  std::mt19937 random(3);
  std::vector<double> slope(kSize), curve(kSize), mean(kSize), squares(kSize);
  for (int64_t p = 0; p < kSize; ++p) {
    slope[p] = std::normal_distribution<double>()(random);
    curve[p] = std::normal_distribution<double>()(random);
  }
  const auto loss = [&](const Direction& z, double eps) {
    double sum = 0;
    for (int64_t p = 0; p < kSize; ++p) {
      const double x = eps * sign_at(z, static_cast<uint64_t>(p));
      sum += slope[p] * x + 0.5 * curve[p] * x * x;
    }
    return sum;
  };
  for (int t = 0; t < kDraws; ++t) {
    const Direction z = direction_of(h, static_cast<uint32_t>(t), 1, 0, 0);
    const double g = (loss(z, 1e-3) - loss(z, -1e-3)) / 2e-3;
    std::vector<uint8_t> byte;
    write_vote(h, g, 2, static_cast<uint32_t>(t), 1, 0, byte);  // a coarse unit: the rounding must be fair
    const double decoded = std::ldexp(*read_vote(h, byte), -2);
    for (int64_t p = 0; p < kSize; ++p) {
      const double estimate = decoded * sign_at(z, static_cast<uint64_t>(p));
      mean[p] += estimate / kDraws;
      squares[p] += estimate * estimate / kDraws;
    }
  }
  for (int64_t p = 0; p < kSize; ++p)
    EXPECT_NEAR(mean[p], slope[p], 4.5 * std::sqrt((squares[p] - mean[p] * mean[p]) / kDraws)) << p;
}

/// What a round of sgd makes of one weight: groups of at most 8192 votes, in the order of the record, vote by vote.
float naive_update(const RunHeader& h, const Record& record, int64_t p, float step_scale, float weight) {
  std::vector<std::pair<Direction, int64_t>> group;
  bool is_first = true;
  const auto close = [&] {
    std::vector<int64_t> sizes;
    for (const auto& [z, value] : group) sizes.push_back(std::abs(value));
    std::sort(sizes.begin(), sizes.end());
    const int64_t limit = h.clip > 0 && sizes.size() >= 8 ? h.clip * sizes[(sizes.size() - 1) / 2] : INT64_MAX;
    int64_t sum = 0;
    for (const auto& [z, value] : group) sum += std::clamp(value, -limit, limit) * sign_at(z, static_cast<uint64_t>(p));
    if (is_first && record.mul != 1) weight *= record.mul;
    is_first = false;
    weight = std::fma(record.alpha * step_scale, static_cast<float>(sum), weight);
    group.clear();
  };
  for (size_t v = 0; v < record.bytes.size(); ++v) {
    const auto lane = static_cast<uint32_t>(v / record.m);
    if (v % 8192 == 0 && v > 0) close();
    if (record.bytes[v] != kInvalidVote)
      group.emplace_back(direction_of(h, record.round, lane, lane, static_cast<uint16_t>(v % record.m)),
                         decode_vote(record.bytes[v]));
  }
  close();
  return weight;
}

TEST(Replica, FortyMachinesOf255ProbesAreTwoGroups) {
  std::mt19937 random(11);
  for (const Family family : {Family::independent, Family::hadamard}) {
    OwnPool own;
    RunHeader h = header_of(own, family, family == Family::hadamard ? 8192 : 0);
    h.m = 255;
    Record record;
    record.lanes = 40;
    record.m = 255;
    record.alpha = -3.1e-9f;
    record.mul = 0.999f;
    for (uint32_t lane = 0; lane < 40; ++lane) {
      record.roster.push_back({lane, true, lane});
      record.present.push_back(true);
      for (int s = 0; s < 255; ++s) record.bytes.push_back(static_cast<uint8_t>(random()));
    }
    const auto values = own.params().values.as<float>();
    const std::vector<float> before(values.begin(), values.end());
    Replica replica(h, own.params());
    replica.apply(test::OwnContext().ctx, record);
    EXPECT_EQ(replica.last().votes, 40 * 255);
    for (const TrainableSlot& slot : own.params().slots)
      for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); p += 31) {
        Record seen = record;
        if (!slot.weight_decay) seen.mul = 1;
        ASSERT_EQ(values[p], naive_update(h, seen, p, slot.step_scale, before[p])) << slot.name << " weight " << p;
      }
  }
}

TEST(Replica, HadamardGroupsOfTheLargestFloatsStayWithin31Bits) {
  OwnPool own;
  RunHeader h = header_of(own, Family::hadamard, 1024);
  h.votes = VoteKind::float32;
  h.m = 63;
  h.clip = 0;
  Replica replica(h, own.params());
  std::map<uint32_t, Vote> votes;
  for (uint32_t machine = 0; machine < 8; ++machine)
    for (uint16_t s = 0; s < 63; ++s)
      write_vote(h, machine % 2 ? 1e30 : -1e30, 14, 0, machine, s, votes[machine].bytes);
  const test::OwnContext context;
  replica.apply(context.ctx, pack_round(replica, {}, {}, votes, 8, {1e-6f, 1}));
  EXPECT_EQ(replica.last().clipped, 8 * 63);
  for (const float w : own.params().values.as<float>()) ASSERT_TRUE(std::isfinite(w));
}

TEST(Replica, ASeedPoolWhoseSumsLeaveTheirRangeSaysSo) {
  for (const float rate : {1e9f, 1e20f}) {
    OwnPool own;
    const RunHeader h = header_of(own, Family::pool, 16);
    Replica replica(h, own.params());
    std::map<uint32_t, Vote> votes;
    votes[0].bytes = {0x7f, 0x7f, 0x7f};
    const test::OwnContext context;
    EXPECT_THROW(replica.apply(context.ctx, pack_round(replica, {}, {}, votes, 1, {rate, 1})), UserError);
  }
}

}  // namespace
}  // namespace tessera
