// Late votes: of a seed round before the record's own, with the roster, the directions and the unit of that round.

#include <gmock/gmock.h>

#include <bit>

#include "core/minifloat.h"
#include "train/spsa/replicas.h"
#include "train/spsa/vote_box.h"

namespace tessera {
namespace {

using namespace test;

HeaderTerms terms_for(double lr = 1e-3) {
  HeaderTerms terms;
  terms.rate.lr = lr;
  terms.rounds = 1000;
  return terms;
}

RunHeader loose_header(OwnPool& pool, Family family = Family::independent, int64_t lanes = 0) {
  RunHeader h = header_of(pool, family, lanes);
  h.stale_max = 2;
  h.terms = terms_for();
  return h;
}

Vote vote_of(std::vector<uint8_t> bytes) {
  Vote vote;
  vote.bytes = std::move(bytes);
  return vote;
}

/// A chain of records that one replica packs and applies.
struct Chain {
  explicit Chain(RunHeader h) : header(std::move(h)), replica(header, pool.params()) {}

  Record pack(const RoundVotes& votes, std::vector<RosterChange> roster = {}, float rate = 1e-3f) {
    const Record record = pack_round(replica, {}, tip, votes, std::move(roster), {rate, 1}, Losses::left_out);
    take(record);
    return record;
  }
  void take(const Record& record) {
    tip.advance(encode(record));
    replica.apply(context.ctx, record);
  }
  std::vector<float> values() {
    const auto view = pool.params().values.as<float>();
    return {view.begin(), view.end()};
  }
  std::string state() { return pool.bytes() + replica.digest(context.ctx).text(); }

  RunHeader header;
  OwnPool pool;
  OwnContext context;
  Replica replica;
  ChainTip tip;
};

const std::vector<RosterChange> kFourJoin = {{0, true, 40}, {1, true, 41}, {2, true, 42}, {3, true, 43}};

TEST(LateVotes, HaveTheGoldenAlphaWhereNobodyElseVoted) {
  OwnPool own;
  RunHeader h = loose_header(own);
  h.m = 2;
  Chain chain(h);
  chain.pack({}, kFourJoin);
  RoundVotes late;
  for (const uint32_t machine : {40u, 41u, 42u, 43u}) late.late[0][machine] = vote_of({0x11, 0x92});
  const Record record = chain.pack(late, {}, 8e-3f);
  ASSERT_EQ(record.extra.size(), 1u);
  EXPECT_EQ(std::bit_cast<uint32_t>(record.alpha), 0xb603126fu);
  EXPECT_EQ(std::bit_cast<uint32_t>(record.extra[0].alpha), 0xb603126fu);
  EXPECT_THAT(record.present, testing::ElementsAre(false, false, false, false));
  EXPECT_EQ(record.extra[0].seed_round, 0u);
  EXPECT_EQ(chain.replica.last().valid, 8);
  EXPECT_EQ(chain.replica.empty_rounds(), 0) << "a round with late votes alone is none without votes";
}

struct Update {
  const char* name;
  const char* optimizer;
  double momentum;
  Family family = Family::independent;
  int64_t lanes = 0;
};
void PrintTo(const Update& update, std::ostream* out) { *out << update.name; }

class LateVotesAlone : public testing::TestWithParam<Update> {
 protected:
  RunHeader header() {
    RunHeader h = loose_header(start_, GetParam().family, GetParam().lanes);
    h.optimizer = GetParam().optimizer;
    h.momentum = GetParam().momentum;
    return h;
  }
  OwnPool start_;
};

/// The same votes as the round's own group, of that seed round: what the arithmetic has to give.
Record as_own_group(Record record) {
  const ExtraGroup group = record.extra.at(0);
  record.extra.clear();
  record.seed_round = group.seed_round;
  record.present = group.present;
  record.bytes = group.bytes;
  return record;
}

TEST_P(LateVotesAlone, MoveTheWeightsAsTheSameVotesOnTime) {
  Chain late(header()), on_time(header());
  RoundVotes first;
  for (const uint32_t machine : {40u, 41u, 43u}) first.now[machine] = vote_of({0x21, 0x93, 0x18});
  for (Chain* chain : {&late, &on_time}) {
    chain->pack({}, kFourJoin);
    chain->pack(first);
    chain->pack({});
  }
  const std::vector<float> before = late.values();
  RoundVotes votes;
  votes.late[2][41] = vote_of({0x15, 0x80, 0xa3});
  votes.late[2][42] = vote_of({0x31, 0x02, 0x99});
  const Record record = late.pack(votes);
  ASSERT_EQ(record.extra.size(), 1u);
  on_time.take(as_own_group(record));
  for (const float w : late.values()) ASSERT_TRUE(std::isfinite(w));
  EXPECT_NE(late.values(), before);
  EXPECT_TRUE(late.state() == on_time.state());
}

TEST_P(LateVotesAlone, WeighAsMuchAsThoseOnTimeBesideThem) {
  // One group of four machines on time, and two groups of which one came late, at one point of the weights: by SGD both
  // add the same integers with the same alpha, and gradients are sums in another order.
  Chain chain(header());
  chain.pack({}, kFourJoin);
  RoundVotes votes;
  for (const uint32_t machine : {40u, 41u}) votes.late[0][machine] = vote_of({0x15, 0x07, 0xa3});
  for (const uint32_t machine : {42u, 43u}) votes.now[machine] = vote_of({0x31, 0x02, 0x80});
  const Record record = chain.pack(votes);
  EXPECT_EQ(record.alpha, record.extra.at(0).alpha);
  EXPECT_EQ(record.alpha, -(1e-3f * 0x1p-9f) / 10) << "ten valid votes in all";
  EXPECT_EQ(chain.replica.last().votes, 12);
  EXPECT_EQ(chain.replica.last().valid, 10);
}

TEST_P(LateVotesAlone, GoOnFromASnapshotBetween) {
  Chain whole(header());
  std::vector<Record> records;
  const auto vote = [&](uint32_t machine, uint32_t round) {
    return vote_of({static_cast<uint8_t>(0x10 + machine + round), 0x95, 0x03});
  };
  records.push_back(whole.pack({}, kFourJoin));
  for (uint32_t t = 1; t < 12; ++t) {
    RoundVotes votes;
    for (uint32_t machine = 40; machine < 44; ++machine)
      if ((machine + t) % 3 != 0) votes.now[machine] = vote(machine, t);
    if (t > 1)
      for (uint32_t machine = 40; machine < 44; ++machine)
        if ((machine + t - 1) % 3 == 0) votes.late[t - 1][machine] = vote(machine, t - 1);
    records.push_back(whole.pack(votes));
  }
  for (const size_t cut : {1u, 5u, 6u, 7u}) {
    Chain first(header()), second(header()), third(header());
    first.replica.apply(first.context.ctx, std::span(records).first(cut));
    const TemporaryFolder folder;
    first.replica.save(folder / "s.safetensors");
    second.replica.load(folder / "s.safetensors");
    third.replica.unpack(first.replica.pack());
    EXPECT_EQ(second.replica.recent(), first.replica.recent());
    for (Chain* chain : {&second, &third}) {
      chain->replica.apply(chain->context.ctx, std::span(records).subspan(cut));
      EXPECT_TRUE(chain->state() == whole.state()) << cut;
    }
    second.replica.save(folder / "a.safetensors");
    whole.replica.save(folder / "b.safetensors");
    EXPECT_TRUE(read_file(folder / "a.safetensors") == read_file(folder / "b.safetensors"));
  }
}

INSTANTIATE_TEST_SUITE_P(Updates, LateVotesAlone,
                         testing::Values(Update{"plain", "sgd", 0}, Update{"momentum", "sgd", 0.9},
                                         Update{"adamw", "adamw", 0},
                                         Update{"hadamard", "sgd", 0, Family::hadamard, 16},
                                         Update{"pool", "sgd", 0, Family::pool, 64}),
                         [](const auto& info) { return info.param.name; });

class LateVotesAfterTheLaneWasGivenAnew : public testing::TestWithParam<Family> {};

TEST_P(LateVotesAfterTheLaneWasGivenAnew, CountForTheirOwnMachine) {
  OwnPool own;
  RunHeader h = loose_header(own, GetParam(), GetParam() == Family::hadamard ? 16 : 0);
  h.m = 1;
  Chain chain(h);
  chain.pack({}, kFourJoin);
  chain.pack({});
  // Machine 42 leaves, and 77 gets its lane, in the record that holds 42's late vote and 77's own.
  RoundVotes votes;
  votes.late[1][42] = vote_of({0x0b});
  votes.now[77] = vote_of({0x05});
  const std::vector<float> before = chain.values();
  const Record record = chain.pack(votes, {{2, false, 42}, {2, true, 77}});
  EXPECT_THAT(record.present, testing::ElementsAre(false, false, true, false));
  EXPECT_THAT(record.extra.at(0).present, testing::ElementsAre(false, false, true, false));
  const Direction late = direction_of(h, 1, 42, 2, 0), now = direction_of(h, 2, 77, 2, 0);
  const std::vector<float> after = chain.values();
  for (const TrainableSlot& slot : chain.pool.params().slots)
    for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); ++p) {
      const auto at = static_cast<size_t>(p);
      const auto pos = static_cast<uint64_t>(p);
      const float alpha = record.alpha * slot.step_scale;
      const float first = std::fmaf(alpha, static_cast<float>(5 * sign_at(now, pos)), before[at]);
      ASSERT_EQ(after[at], std::fmaf(alpha, static_cast<float>(11 * sign_at(late, pos)), first)) << slot.name << p;
    }
}

INSTANTIATE_TEST_SUITE_P(Families, LateVotesAfterTheLaneWasGivenAnew,
                         testing::Values(Family::independent, Family::hadamard));

TEST(LateVotes, KeepTheUnitThatTheyWereCountedIn) {
  OwnPool own;
  RunHeader h = loose_header(own);
  h.m = 1;
  Chain chain(h);
  chain.pack({}, kFourJoin);
  // Tiny votes for 64 rounds: the unit is to become finer.
  RoundVotes tiny;
  for (const uint32_t machine : {40u, 41u, 42u, 43u}) tiny.now[machine] = vote_of({0x02});
  for (int t = 0; t < 64; ++t) EXPECT_EQ(chain.pack(tiny).unit_exp, 9);
  const uint32_t announced = chain.replica.round();
  const Record tells = chain.pack(tiny);
  EXPECT_EQ(tells.unit_exp, 16);  // 2 has two bits: seven more make nine
  EXPECT_EQ(tells.flags & 2, 2);
  // In force from the third round on; until then nothing else is announced, and votes are in the old unit.
  for (int t = 0; t < 2; ++t) {
    EXPECT_EQ(chain.replica.unit(), 9);
    const Record record = chain.pack(tiny);
    EXPECT_EQ(record.unit_exp, 16);
    EXPECT_EQ(record.flags & 2, 0);
    EXPECT_EQ(record.alpha, -(1e-3f * 0x1p-9f) / 4);
  }
  EXPECT_EQ(chain.replica.round(), announced + 3);
  EXPECT_EQ(chain.replica.unit(), 16);
  EXPECT_EQ(chain.pack(tiny).alpha, -(1e-3f * 0x1p-16f) / 4);
}

TEST(LateVotes, AcrossAChangeOfUnitAreScaledByTheirOwn) {
  OwnPool own;
  for (const double momentum : {0.0, 0.9}) {
    RunHeader h = loose_header(own);
    h.m = 1;
    h.momentum = momentum;
    Chain chain(h);
    chain.pack({}, kFourJoin);
    chain.pack({});
    // A record that announces a unit of 13, as any packer's may: in force for seed round 2 + 2 + 1.
    Record tells = pack_round(chain.replica, {}, chain.tip, RoundVotes{}, {}, {1e-3f, 1});
    tells.unit_exp = 13;
    tells.flags |= 2;
    chain.take(tells);
    chain.pack({});
    chain.pack({});
    EXPECT_EQ(chain.replica.round(), 5u);
    EXPECT_EQ(chain.replica.unit(), 13);
    EXPECT_EQ(chain.replica.recent().unit_of(4), 9);
    // 16 units of 2^-9 and 256 of 2^-13 are the same gradient.
    RoundVotes late;
    late.late[4][40] = vote_of({0x10});
    const Record record = pack_round(chain.replica, {}, chain.tip, late, {}, {1e-3f, 1});
    EXPECT_EQ(record.extra.at(0).alpha, -(1e-3f * 0x1p-9f));
    EXPECT_EQ(record.alpha, -(1e-3f * 0x1p-13f));
    const std::vector<float> before = chain.values();
    chain.take(record);
    const Direction z = direction_of(h, 4, 40, 0, 0);
    const std::vector<float> after = chain.values();
    const double g = 16 * 0x1p-9, lr = 1e-3;
    for (int64_t p = 0; p < 37 * 11; ++p) {
      const auto at = static_cast<size_t>(p);
      const double expected = -lr * g * sign_at(z, static_cast<uint64_t>(p));
      ASSERT_NEAR(static_cast<double>(after[at]) - static_cast<double>(before[at]), expected, 1e-3 * lr * g)
          << momentum;
    }
  }
}

}  // namespace
}  // namespace tessera
