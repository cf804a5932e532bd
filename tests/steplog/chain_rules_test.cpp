// One test a rule: a good next record with one fault.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "steplog/chain_rules.h"
#include "steplog/samples.h"

namespace tessera::test {
namespace {

RunId test_run() {
  RunId run;
  for (size_t i = 0; i < run.sha256.size(); ++i) run.sha256[i] = static_cast<std::byte>(i + 1);
  return run;
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Three machines, five rounds.
class ChainRulesTest : public ::testing::Test {
 protected:
  ChainRulesTest() : chain_(test_run(), {.alpha_max = 2, .mul_min = 0.5, .mul_max = 1, .stale_max = 2, .m_max = 8}) {
    chain_.add(chain_.first_round(3));
    for (int i = 0; i < 4; ++i) chain_.add(chain_.round());
  }
  std::string rule(const Record& record) const {
    const auto refusal = chain_.rules.refuses(record);
    return refusal ? refusal->rule : "none";
  }
  ExtraGroup late(uint32_t seed_round) const { return {seed_round, -0.5f, {false, true, false}, {1, 2, 3, 4}}; }
  Chain chain_;
};

TEST(RunId, ThePrefixIsItsFirstFourBytes) { EXPECT_EQ(test_run().prefix(), 0x04030201u); }

TEST_F(ChainRulesTest, AGoodRecordIsAccepted) {
  Record record = chain_.round();
  record.extra = {late(4), late(3)};
  EXPECT_EQ(rule(record), "none");
  chain_.add(record);
  EXPECT_EQ(chain_.rules.next_index(), 6u);
  EXPECT_EQ(chain_.rules.next_round(), 6u);
}

TEST_F(ChainRulesTest, RunOfAnother) {
  Record record = chain_.round();
  record.run ^= 1;
  EXPECT_EQ(rule(record), "run");
}

TEST_F(ChainRulesTest, IndexOutOfOrder) {
  Record record = chain_.round();
  ++record.index;
  EXPECT_EQ(rule(record), "index");
}

TEST_F(ChainRulesTest, PrevOfAnotherRecord) {
  Record record = chain_.round();
  record.prev ^= 1;
  EXPECT_EQ(rule(record), "prev");
}

TEST_F(ChainRulesTest, AChangedRecordBreaksTheNext) {
  Record changed = chain_.round();
  Chain other = chain_;
  chain_.add(changed);
  changed.bytes[0] ^= 1;
  other.add(changed);
  EXPECT_NE(chain_.rules.prev(), other.rules.prev());
  EXPECT_EQ(rule(other.round()), "prev");
}

TEST_F(ChainRulesTest, TypeUnknown) {
  Record record = chain_.round();
  record.type = static_cast<RecordType>(6);
  EXPECT_EQ(rule(record), "type");
  record.type = static_cast<RecordType>(0);
  EXPECT_EQ(rule(record), "type");
}

TEST_F(ChainRulesTest, RoundGap) {
  Record record = chain_.round();
  record.round = record.seed_round = 6;
  EXPECT_EQ(rule(record), "round");
  record.round = record.seed_round = 4;
  EXPECT_EQ(rule(record), "round");
}

TEST_F(ChainRulesTest, AlphaNotFiniteOrTooLarge) {
  for (float alpha : {kNan, std::numeric_limits<float>::infinity(), 2.5f, -2.5f}) {
    Record record = chain_.round();
    record.alpha = alpha;
    EXPECT_EQ(rule(record), "alpha") << alpha;
    record = chain_.round();
    record.extra = {late(4)};
    record.extra[0].alpha = alpha;
    EXPECT_EQ(rule(record), "alpha") << alpha;
  }
  Record record = chain_.round();
  record.alpha = -2;
  EXPECT_EQ(rule(record), "none");
}

TEST_F(ChainRulesTest, MulOutOfRange) {
  for (float mul : {kNan, 0.25f, 1.5f, -1.0f}) {
    Record record = chain_.round();
    record.mul = mul;
    EXPECT_EQ(rule(record), "mul") << mul;
  }
}

TEST_F(ChainRulesTest, MoreBytesALaneThanAgreed) {
  EXPECT_EQ(rule(chain_.round(8)), "none");
  EXPECT_EQ(rule(chain_.round(9)), "m");
}

TEST_F(ChainRulesTest, LanesWithoutRoster) {
  Record record = chain_.round();
  record.lanes = 4;
  record.present = {true, true, true, false};
  EXPECT_EQ(rule(record), "lanes");
  record.lanes = 2;
  EXPECT_EQ(rule(record), "lanes");
}

TEST_F(ChainRulesTest, SeedRoundInTheFutureOrTwice) {
  Record record = chain_.round();
  record.seed_round = 6;
  EXPECT_EQ(rule(record), "seed round");
  for (uint32_t seed_round : {6u, 5u}) {  // 5: that of the main group
    record = chain_.round();
    record.extra = {late(seed_round)};
    EXPECT_EQ(rule(record), "seed round");
  }
  record.extra = {late(4), late(4)};
  EXPECT_EQ(rule(record), "seed round");
}

TEST_F(ChainRulesTest, SeedRoundTooStale) {
  Record record = chain_.round();
  record.seed_round = 3;
  EXPECT_EQ(rule(record), "none");
  record.seed_round = 2;
  EXPECT_EQ(rule(record), "stale");
  record = chain_.round();
  record.extra = {late(2)};
  EXPECT_EQ(rule(record), "stale");
}

TEST_F(ChainRulesTest, VotesOfAFreeLane) {
  Record record = chain_.round();
  record.roster = {{1, false, 1}};
  EXPECT_EQ(rule(record), "machine");
  record.present[1] = false;
  EXPECT_EQ(rule(record), "none");
  record.extra = {late(4)};
  EXPECT_EQ(rule(record), "machine");
}

TEST_F(ChainRulesTest, MachineUnknownOrTwice) {
  const auto with = [&](RosterChange change) {
    Record record = chain_.round();
    record.roster = {change};
    if (change.add && change.lane == 3) {
      record.lanes = 4;
      record.present.push_back(false);
    }
    return rule(record);
  };
  EXPECT_EQ(with({3, true, 3}), "none");
  EXPECT_EQ(with({3, true, 1}), "machine");           // in the roster already
  EXPECT_EQ(with({3, true, 0xFFFFFF00}), "machine");  // reserved
  EXPECT_EQ(with({1, false, 2}), "machine");          // not of this lane
  EXPECT_EQ(with({7, false, 2}), "machine");          // no such lane
}

TEST_F(ChainRulesTest, LaneTaken) {
  Record record = chain_.round();
  record.roster = {{1, true, 7}};
  EXPECT_EQ(rule(record), "lane");
}

TEST_F(ChainRulesTest, AFreedLaneIsGivenAwayAndAnIdNeverComesBack) {
  Record record = chain_.round();
  record.roster = {{1, false, 1}, {1, true, 7}};
  chain_.add(record);
  EXPECT_EQ(chain_.rules.roster()[1], 7u);
  record = chain_.round();
  record.roster = {{1, false, 7}, {1, true, 1}};
  EXPECT_EQ(rule(record), "machine");
}

TEST_F(ChainRulesTest, NothingFollowsTheEnd) {
  chain_.add(chain_.next(RecordType::end));
  EXPECT_TRUE(chain_.rules.ended());
  EXPECT_EQ(rule(chain_.round()), "end");
  EXPECT_EQ(rule(chain_.next(RecordType::digest)), "end");
}

TEST_F(ChainRulesTest, OnlyRoundsAdvanceTheRound) {
  for (RecordType type : {RecordType::snapshot, RecordType::digest, RecordType::reseed}) {
    Record record = chain_.next(type);
    record.round = 3;  // of an earlier state
    chain_.add(record);
    record = chain_.next(type);
    record.round = 6;
    EXPECT_EQ(rule(record), "round");
  }
  EXPECT_EQ(chain_.rules.next_round(), 5u);
  EXPECT_EQ(chain_.rules.next_index(), 8u);
}

TEST(ChainState, OfFormat1IsTheseBytes) {  // as every program wrote them before there was another
  Chain chain(test_run());
  chain.add(chain.first_round(2));
  Record record = chain.round();
  record.roster = {{0, false, 0}, {2, true, 0x0A0B0C0D}};
  record.lanes = 3;
  record.present = {false, true, false};
  record.bytes.resize(4);
  chain.add(record);
  Bytes expected = bytes_of({'T', 'S', 'B', 'C', 1, 0, 0, 0, 1, 2, 3, 4, 2, 0, 0, 0,  // magic, version, run, round
                             2,   0,   0,   0,   0, 0, 0, 0});                        // index
  for (int i = 0; i < 8; ++i) expected.push_back(static_cast<std::byte>(chain.rules.prev() >> (8 * i) & 0xFF));
  const Bytes rest = bytes_of({0, 0, 0, 0, 3, 0, 0, 0, 0x06, 1, 0, 0, 0, 0x0D, 0x0C, 0x0B, 0x0A,  // ended, lanes
                               1, 0, 0, 0, 0, 0, 0, 0});                                          // who left
  expected.insert(expected.end(), rest.begin(), rest.end());
  const Bytes saved = chain.rules.save();
  ASSERT_EQ(saved.size(), expected.size() + 4) << "and the checksum";
  EXPECT_EQ(Bytes(saved.begin(), saved.end() - 4), expected);
}

TEST_F(ChainRulesTest, TheStateComesBackFromItsBytes) {
  Record record = chain_.round();
  record.roster = {{1, false, 1}};
  record.present[1] = false;
  record.bytes.resize(8);
  chain_.add(record);
  const Bytes saved = chain_.rules.save();
  const ChainRules::Limits limits{.run = test_run()};
  const auto restored = ChainRules::restore(limits, saved);
  ASSERT_TRUE(std::holds_alternative<ChainRules>(restored));
  EXPECT_EQ(std::get<ChainRules>(restored).save(), saved);
  EXPECT_EQ(std::get<ChainRules>(restored).roster(), chain_.rules.roster());
  for (size_t at = 0; at < saved.size(); ++at) {
    Bytes changed = saved;
    changed[at] ^= std::byte{0x10};
    EXPECT_TRUE(std::holds_alternative<Refusal>(ChainRules::restore(limits, changed)));
    EXPECT_TRUE(std::holds_alternative<Refusal>(ChainRules::restore(limits, std::span(saved).first(at))));
  }
}

}  // namespace
}  // namespace tessera::test
