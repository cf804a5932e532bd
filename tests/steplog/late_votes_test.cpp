// Rules of format 2: late votes, units, signatures and flags. A good next record with one fault each.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "steplog/samples.h"

namespace tessera::test {
namespace {

RunId test_run() {
  RunId run;
  for (size_t i = 0; i < run.sha256.size(); ++i) run.sha256[i] = static_cast<std::byte>(i + 1);
  return run;
}

std::string rule(const ChainRules& rules, const Record& record) {
  const auto refusal = rules.refuses(record);
  return refusal ? refusal->rule : "none";
}

/// Only the lanes named vote.
void let_vote(Record& record, const std::vector<uint32_t>& lanes) {
  record.present.assign(record.lanes, false);
  for (uint32_t lane : lanes) record.present[lane] = true;
  record.bytes.assign(lanes.size() * record.m, 1);
}

ExtraGroup late(const Record& record, uint32_t seed_round, const std::vector<uint32_t>& lanes) {
  ExtraGroup group{seed_round, -0.5f, std::vector<bool>(record.lanes),
                   std::vector<uint8_t>(lanes.size() * record.m, 2)};
  for (uint32_t lane : lanes) group.present[lane] = true;
  return group;
}

/// Three machines, 100 to 102; votes may come two rounds late. In rounds 0 to 3 lanes 0 and 2 vote; round 4 is next.
class LateVotesTest : public ::testing::Test {
 protected:
  LateVotesTest() : chain_(test_run(), {.alpha_max = 2, .stale_max = 2, .format = 2, .unit = 9}) {
    for (int round = 0; round < 4; ++round) {
      Record record = next();
      if (round == 0) record.roster = {{0, true, 100}, {1, true, 101}, {2, true, 102}};
      record.lanes = 3;
      let_vote(record, {0, 2});
      chain_.add(record);
    }
  }
  Record next() {
    Record record = chain_.round();
    let_vote(record, {});
    return record;
  }
  /// The next record with these late groups.
  Record next_with(const std::vector<std::pair<uint32_t, std::vector<uint32_t>>>& groups) {
    Record record = next();
    for (const auto& [seed_round, lanes] : groups) record.extra.push_back(late(record, seed_round, lanes));
    return record;
  }
  std::string rule(const Record& record) const { return test::rule(chain_.rules, record); }
  void announce(int unit) {
    Record record = next();
    record.unit_exp = static_cast<int8_t>(unit);
    chain_.add(record);
  }
  Chain chain_;
};

TEST_F(LateVotesTest, GroupsOfTheLastRoundsAreAccepted) {
  EXPECT_EQ(rule(next_with({{2, {1}}, {3, {1}}})), "none");
  EXPECT_EQ(rule(next_with({{3, {1}}})), "none");
  EXPECT_EQ(rule(next_with({{1, {1}}})), "stale");
  EXPECT_EQ(rule(next_with({{4, {1}}})), "seed round") << "the main group's";
  EXPECT_EQ(rule(next_with({{5, {1}}})), "seed round");
  EXPECT_EQ(rule(next_with({{3, {1}}, {3, {}}})), "seed round") << "two groups of one";
}

TEST_F(LateVotesTest, GroupsAscend) {
  EXPECT_EQ(rule(next_with({{3, {1}}, {2, {1}}})), "order");
  EXPECT_EQ(rule(next_with({{3, {}}, {2, {}}})), "order") << "empty ones too";
}

TEST_F(LateVotesTest, TheMainGroupIsOfItsOwnRound) {
  Record record = next();
  record.seed_round = 3;
  EXPECT_EQ(rule(record), "seed round");
}

TEST_F(LateVotesTest, AVoteCountsOnce) {
  EXPECT_EQ(rule(next_with({{3, {0}}})), "twice") << "it was in the main group of record 3";
  EXPECT_EQ(rule(next_with({{2, {1}}, {3, {1, 2}}})), "twice");
  chain_.add(next_with({{3, {1}}}));
  EXPECT_EQ(rule(next_with({{3, {1}}})), "twice") << "it was in an extra group of record 4";
  EXPECT_EQ(rule(next_with({{4, {1}}})), "none") << "of another round";
}

TEST_F(LateVotesTest, AnAbstentionCountsToo) {  // 0x80: told, adds nothing, and is no vote to be told again
  Record record = next_with({{3, {1}}});
  record.extra[0].bytes.assign(record.m, 0x80);
  chain_.add(record);
  EXPECT_EQ(rule(next_with({{3, {1}}})), "twice");
}

TEST_F(LateVotesTest, AVoteOfALaneGivenAnewIsTheFormerMachines) {
  Record record = next();
  record.roster = {{1, false, 101}, {1, true, 200}};
  chain_.add(record);  // record 4: from here on lane 1 is machine 200's, which has not voted in round 4
  EXPECT_EQ(rule(next_with({{3, {1}}})), "none") << "machine 101's, of a round when it had the lane";
  EXPECT_EQ(rule(next_with({{4, {1}}})), "none") << "machine 200's";
  chain_.add(next_with({{3, {1}}, {4, {1}}}));
  EXPECT_EQ(rule(next_with({{4, {1}}})), "twice");
}

TEST_F(LateVotesTest, ANewcomerHasNoVotesOfRoundsBefore) {
  Record record = next();
  record.roster = {{3, true, 200}};
  record.lanes = 4;
  let_vote(record, {});
  chain_.add(record);  // record 4 makes lane 3
  EXPECT_EQ(rule(next_with({{4, {3}}})), "none");
  EXPECT_EQ(rule(next_with({{3, {3}}})), "machine") << "there was no such lane";
  record = next();
  record.roster = {{1, false, 101}};
  chain_.add(record);  // record 5 frees lane 1
  record = next();
  record.roster = {{1, true, 300}};
  chain_.add(record);  // record 6 gives it to machine 300
  EXPECT_EQ(rule(next_with({{5, {1}}})), "machine") << "the lane was free";
  EXPECT_EQ(rule(next_with({{6, {1}}})), "none");
}

TEST_F(LateVotesTest, ALateVoteOfAMachineThatLeavesInTheSameRecordCounts) {
  Record record = next_with({{3, {1}}});
  record.roster = {{1, false, 101}};
  EXPECT_EQ(rule(record), "none");
  let_vote(record, {1});
  EXPECT_EQ(rule(record), "machine") << "the main group's roster is the one behind the changes";
}

TEST_F(LateVotesTest, AlphaOfAGroupIsBounded) {
  Record record = next_with({{3, {1}}});
  record.extra[0].alpha = 2.5f;
  EXPECT_EQ(rule(record), "alpha");
}

TEST_F(LateVotesTest, UnitsOutsideTheirRangeAreRefused) {
  for (int unit : {-128, -21, 31, 127}) {
    Record record = next();
    record.unit_exp = static_cast<int8_t>(unit);
    EXPECT_EQ(rule(record), "unit") << unit;
  }
  for (int unit : {-20, 30}) {
    Record record = next();
    record.unit_exp = static_cast<int8_t>(unit);
    EXPECT_EQ(rule(record), "none") << unit;
  }
}

TEST_F(LateVotesTest, NoSecondUnitIsAnnouncedWhileOneWaits) {
  announce(12);  // record 4, for rounds 7 on
  for (int round = 5; round < 7; ++round) {
    for (int unit : {9, 13}) {  // 9: to take it back is another announcement
      Record record = next();
      record.unit_exp = static_cast<int8_t>(unit);
      EXPECT_EQ(rule(record), "unit") << "round " << round;
    }
    chain_.add(next());
  }
  EXPECT_EQ(chain_.rules.rounds().unit(), 12);
  announce(13);
  EXPECT_EQ(chain_.rules.rounds().unit_of(9), 12);
  EXPECT_EQ(chain_.rules.rounds().unit_of(10), 13);
}

TEST_F(LateVotesTest, ConflictsOfPackersAreTold) {
  Record record = next();
  record.flags |= kHadConflict;
  chain_.add(record);
  record = chain_.next(RecordType::reseed);
  record.flags |= kHadConflict;
  chain_.add(record);
  EXPECT_EQ(chain_.rules.next_index(), 6u);
}

TEST_F(LateVotesTest, FlagsOfFormat2AreUnknownToFormat1) {
  Chain old(test_run());
  old.add(old.first_round(2));
  for (uint16_t flag : {kIsSigned, kHadConflict}) {
    for (const RecordType type : {RecordType::round, RecordType::end}) {
      Record record = type == RecordType::round ? old.round() : old.next(type);
      record.flags |= flag;
      if (flag == kIsSigned) record.signature = Signature{};
      EXPECT_EQ(test::rule(old.rules, record), "flags");
    }
  }
}

TEST_F(LateVotesTest, AnOlderHeaderIsJudgedByItsOwnRules) {
  Chain old(test_run(), {.stale_max = 2});
  old.add(old.first_round(3));
  for (int i = 0; i < 3; ++i) old.add(old.round());
  Record record = old.round();
  record.extra = {late(record, 3, {1}), late(record, 2, {1})};  // not ascending, and counted already
  record.unit_exp = 100;
  EXPECT_EQ(test::rule(old.rules, record), "none");
  old.add(record);
  record = old.round();
  record.unit_exp = 50;
  EXPECT_EQ(test::rule(old.rules, record), "none");
  record.roster = {{1, false, 1}};
  let_vote(record, {0, 2});
  record.extra = {late(record, 3, {1})};
  EXPECT_EQ(test::rule(old.rules, record), "machine") << "the lane is free today";
}

TEST_F(LateVotesTest, TheStateComesBackInTheMiddleOfAnAnnouncement) {
  Record record = next_with({{2, {1}}, {3, {1}}});
  record.roster = {{1, false, 101}, {1, true, 200}};
  record.unit_exp = 12;
  chain_.add(record);
  const Bytes saved = chain_.rules.save();
  const ChainRules::Limits limits{.run = test_run(), .alpha_max = 2, .stale_max = 2, .format = 2};
  const auto restored = ChainRules::restore(limits, saved);
  ASSERT_TRUE(std::holds_alternative<ChainRules>(restored)) << std::get<Refusal>(restored).detail;
  const ChainRules& back = std::get<ChainRules>(restored);
  EXPECT_EQ(back.save(), saved);
  EXPECT_EQ(back.rounds(), chain_.rules.rounds());
  EXPECT_EQ(std::to_integer<int>(saved[4]), 2) << "the version";
  // It judges as the chain does that was never saved.
  record = next();
  record.unit_exp = 9;
  EXPECT_EQ(test::rule(back, record), "unit");
  EXPECT_EQ(test::rule(back, next_with({{3, {1}}})), "twice");
  EXPECT_EQ(test::rule(back, next_with({{4, {1}}})), "none");
  for (size_t at = 0; at < saved.size(); ++at) {
    Bytes changed = saved;
    changed[at] ^= std::byte{0x10};
    EXPECT_TRUE(std::holds_alternative<Refusal>(ChainRules::restore(limits, changed)));
    EXPECT_TRUE(std::holds_alternative<Refusal>(ChainRules::restore(limits, std::span(saved).first(at))));
  }
}

TEST_F(LateVotesTest, AStateOfVersion1HasNoLateVotesBefore) {
  Chain old(test_run());
  old.add(old.first_round(3));
  old.add(old.round());
  const Bytes saved = old.rules.save();
  EXPECT_EQ(std::to_integer<int>(saved[4]), 1) << "older logs keep their bytes";
  const auto restored = ChainRules::restore({.run = test_run(), .stale_max = 2, .format = 2, .unit = 7}, saved);
  ASSERT_TRUE(std::holds_alternative<ChainRules>(restored));
  chain_.rules = std::get<ChainRules>(restored);
  EXPECT_EQ(chain_.rules.rounds().unit(), 7);
  EXPECT_EQ(rule(next_with({{1, {1}}})), "machine");
  EXPECT_EQ(rule(next()), "none");
  const auto other_way = ChainRules::restore({.run = test_run()}, chain_.rules.save());
  ASSERT_TRUE(std::holds_alternative<Refusal>(other_way)) << "version 2 in a log of format 1";
  EXPECT_EQ(std::get<Refusal>(other_way).rule, "version");
}

/// Two of three keys may sign.
class SignedChainTest : public ::testing::Test {
 protected:
  SignedChainTest() : chain_(test_run(), {.format = 2, .signers = {keys_[0].public_key(), keys_[2].public_key()}}) {
    chain_.add_signed(chain_.first_round(2), keys_[0], 0);
  }
  std::string rule_of(const Bytes& encoded) const {
    return rule(chain_.rules, std::get<Record>(decode_record(encoded)));
  }
  const std::vector<SigningKey> keys_ = rfc_keys();
  Chain chain_;
};

TEST_F(SignedChainTest, RecordsOfEveryTypeAreSigned) {
  chain_.add_signed(chain_.round(), keys_[2], 1);
  for (const RecordType type : {RecordType::snapshot, RecordType::digest, RecordType::reseed, RecordType::end}) {
    EXPECT_EQ(rule_of(encode(chain_.next(type))), "signature");
    chain_.add_signed(chain_.next(type), keys_[0], 0);
  }
  EXPECT_TRUE(chain_.rules.ended());
}

TEST_F(SignedChainTest, ASignatureIsThatOfTheSignerItNames) {
  const Record record = chain_.round();
  EXPECT_EQ(rule_of(encode_signed(record, test_run(), keys_[0], 0)), "none");
  EXPECT_EQ(rule_of(encode(record)), "signature") << "none";
  EXPECT_EQ(rule_of(encode_signed(record, test_run(), keys_[0], 1)), "signature") << "of another signer";
  EXPECT_EQ(rule_of(encode_signed(record, test_run(), keys_[1], 0)), "signature") << "of nobody that the header names";
  EXPECT_EQ(rule_of(encode_signed(record, test_run(), keys_[0], 2)), "signature") << "there are two signers";
  RunId other = test_run();
  other.sha256[20] ^= std::byte{1};
  EXPECT_EQ(rule_of(encode_signed(record, other, keys_[0], 0)), "signature") << "of another run";
}

TEST_F(SignedChainTest, TheNextRecordIsChainedToTheSignature) {
  const Record record = chain_.round();
  Chain other = chain_;
  Bytes first = chain_.add_signed(record, keys_[0], 0), second = other.add_signed(record, keys_[2], 1);
  EXPECT_NE(chain_.rules.prev(), other.rules.prev()) << "two packers made the same round: these are two records";
  EXPECT_EQ(chain_.rules.prev(), chain_hash(first));
  EXPECT_EQ(other.rules.prev(), chain_hash(second));
}

TEST_F(LateVotesTest, NobodySignsWhereTheHeaderNamesNoSigners) {
  const Bytes encoded = encode_signed(next(), test_run(), rfc_keys()[0], 0);
  EXPECT_EQ(rule(std::get<Record>(decode_record(encoded))), "signature");
}

}  // namespace
}  // namespace tessera::test
