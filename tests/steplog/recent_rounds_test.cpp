#include "steplog/recent_rounds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "steplog/wire.h"

namespace tessera::test {
namespace {

/// Rounds of lanes that all vote, unless a test says otherwise.
class RecentRoundsTest : public ::testing::Test {
 protected:
  explicit RecentRoundsTest(int stale_max = 2) : rounds_(stale_max, 9) {}

  Record next(std::vector<RosterChange> changes = {}) const {
    Record record;
    record.round = record.seed_round = rounds_.next_round();
    record.unit_exp = static_cast<int8_t>(rounds_.announced());
    record.m = 1;
    record.roster = std::move(changes);
    record.lanes = static_cast<uint16_t>(rounds_.roster().size());
    for (const RosterChange& change : record.roster)
      record.lanes = std::max(record.lanes, static_cast<uint16_t>(change.lane + 1));
    record.present.assign(record.lanes, true);
    return record;
  }
  void go_on(int count = 1) {
    for (int i = 0; i < count; ++i) rounds_.accept(next());
  }
  void announce(int unit) {
    Record record = next();
    record.unit_exp = static_cast<int8_t>(unit);
    rounds_.accept(record);
  }
  void begin_with_three_machines() { rounds_.accept(next({{0, true, 10}, {1, true, 11}, {2, true, 12}})); }

  Bytes saved() const {
    ByteWriter writer;
    rounds_.save(writer);
    return writer.take();
  }
  /// The rule that the bytes break, "none", or how many of them were not read.
  static std::string rule(std::span<const std::byte> bytes, int stale_max, uint32_t next_round) {
    const auto restored = decode_or_refusal([&] {
      ByteReader reader(bytes);
      RecentRounds::restore(reader, stale_max, next_round);
      return reader.rest().size();
    });
    if (const auto* refusal = std::get_if<Refusal>(&restored)) return refusal->rule;
    const size_t rest = std::get<size_t>(restored);
    return rest == 0 ? "none" : fmt::format("{} bytes left", rest);
  }

  RecentRounds rounds_;
};

class StrictRoundsTest : public RecentRoundsTest {
 protected:
  StrictRoundsTest() : RecentRoundsTest(0) {}
};

using ::testing::ElementsAre;

TEST_F(RecentRoundsTest, ALaneGivenAnewStillIsItsFormerMachinesInRoundsBefore) {
  begin_with_three_machines();  // round 0
  rounds_.accept(next({{1, false, 11}, {1, true, 20}, {3, true, 21}}));
  EXPECT_THAT(rounds_.roster(), ElementsAre(10, 20, 12, 21));
  ASSERT_TRUE(rounds_.roster_of(0));
  EXPECT_THAT(*rounds_.roster_of(0), ElementsAre(10, 11, 12)) << "there was no lane 3";
  EXPECT_THAT(*rounds_.roster_of(1), ElementsAre(10, 20, 12, 21)) << "the record's own changes count for its round";
  EXPECT_THAT(rounds_.former(), ElementsAre(11));
  EXPECT_FALSE(rounds_.roster_of(2)) << "not there yet";
  go_on();
  EXPECT_THAT(*rounds_.roster_of(1), ElementsAre(10, 20, 12, 21));
  EXPECT_FALSE(rounds_.roster_of(0)) << "three rounds ago; two may come late";
}

TEST(LaneIndex, FindsWhatALookThroughTheRosterFinds) {
  const Roster roster = {7, std::nullopt, 3, 900, std::nullopt};
  const LaneIndex index(roster);
  for (const uint32_t machine : {0u, 3u, 7u, 900u, 901u}) {
    EXPECT_EQ(index.find(machine), lane_of(roster, machine)) << machine;
    EXPECT_EQ(index.contains(machine), lane_of(roster, machine).has_value()) << machine;
  }
}

TEST_F(RecentRoundsTest, TheRosterBehindARecordIsKnownBeforeItIsAccepted) {
  begin_with_three_machines();
  const Record record = next({{0, false, 10}, {4, true, 30}});
  EXPECT_THAT(rounds_.roster_behind(record), ElementsAre(std::nullopt, 11, 12, std::nullopt, 30));
  EXPECT_THAT(rounds_.roster(), ElementsAre(10, 11, 12));
  rounds_.accept(record);
  EXPECT_EQ(rounds_.roster(), rounds_.roster_behind(next()));
}

TEST_F(RecentRoundsTest, AUnitHoldsOnceNoVoteUnderWayCanBeOfAnother) {
  begin_with_three_machines();
  go_on(2);
  announce(12);  // by record 3: for votes of round 3 + 2 + 1 on
  EXPECT_EQ(rounds_.announced(), 12);
  EXPECT_EQ(rounds_.announced_from(), 6u);
  EXPECT_TRUE(rounds_.is_waiting());
  EXPECT_EQ(rounds_.unit(), 9) << "of round 4";
  EXPECT_EQ(rounds_.unit_of(5), 9) << "one round ahead";
  EXPECT_EQ(rounds_.unit_of(6), 12) << "two rounds ahead";
  go_on();
  EXPECT_TRUE(rounds_.is_waiting());
  EXPECT_EQ(rounds_.unit(), 9) << "of round 5";
  go_on();
  EXPECT_FALSE(rounds_.is_waiting());
  EXPECT_EQ(rounds_.unit(), 12) << "of round 6";
  EXPECT_EQ(rounds_.unit_of(5), 9) << "late votes keep theirs";
  announce(15);  // by record 6, while rounds 4 and 5 may still come late
  EXPECT_EQ(rounds_.unit(), 12);
  EXPECT_EQ(rounds_.unit_of(5), 9);
  EXPECT_EQ(rounds_.unit_of(6), 12);
  EXPECT_EQ(rounds_.unit_of(9), 15);
}

TEST_F(StrictRoundsTest, WithoutLateVotesAUnitHoldsFromTheNextRoundOn) {
  begin_with_three_machines();
  announce(12);
  EXPECT_FALSE(rounds_.is_waiting());
  EXPECT_EQ(rounds_.unit(), 12);
  EXPECT_FALSE(rounds_.roster_of(1));
  EXPECT_FALSE(rounds_.is_counted(1, 0));
}

TEST_F(RecentRoundsTest, ALaneCountsOnceItStandsInAMainOrInAnExtraGroup) {
  begin_with_three_machines();
  Record record = next();
  record.present = {true, false, false};
  rounds_.accept(record);  // round 1
  record = next();
  record.present = {false, false, true};
  record.extra = {{0, 0, {false, false, false}, {}}, {1, 0, {false, true, false}, {7}}};
  rounds_.accept(record);  // round 2
  const auto counted = [&](uint32_t seed_round) {
    std::vector<bool> lanes;
    for (uint32_t lane = 0; lane < 3; ++lane) lanes.push_back(rounds_.is_counted(seed_round, lane));
    return lanes;
  };
  EXPECT_EQ(counted(1), (std::vector<bool>{true, true, false}));
  EXPECT_EQ(counted(2), (std::vector<bool>{false, false, true}));
  EXPECT_FALSE(rounds_.is_counted(2, 3)) << "no such lane";
  EXPECT_FALSE(rounds_.is_counted(3, 0)) << "to come";
}

TEST_F(RecentRoundsTest, ComeBackInTheMiddleOfAnAnnouncement) {
  begin_with_three_machines();
  Record record = next({{1, false, 11}, {1, true, 20}});
  record.present = {true, false, true};
  rounds_.accept(record);
  record = next();
  record.unit_exp = -3;
  record.extra = {{1, 0, {false, true, false}, {7}}};
  rounds_.accept(record);
  const Bytes bytes = saved();
  ByteReader reader(bytes);
  RecentRounds back = RecentRounds::restore(reader, 2, 3);
  EXPECT_TRUE(reader.rest().empty());
  EXPECT_EQ(back, rounds_);
  EXPECT_TRUE(back.is_counted(1, 1));
  EXPECT_EQ(back.unit(), 9);
  EXPECT_EQ(back.unit_of(5), -3);
  for (int i = 0; i < 4; ++i) {
    rounds_.accept(next());
    Record same = next();
    same.round = same.seed_round = back.next_round();
    back.accept(same);
    EXPECT_EQ(back, rounds_) << i;
  }
}

TEST_F(RecentRoundsTest, AreTheseBytes) {
  Record record = next({{1, true, 11}});
  record.present = {false, true};
  rounds_.accept(record);  // round 0
  record = next({{1, false, 11}, {0, true, 0x01020304}});
  record.present = {true, false};
  record.unit_exp = -2;
  rounds_.accept(record);                                                              // round 1
  const std::vector<int> expected{2,    0, 0, 0, 0x01, 4, 3, 2, 1,                     // lanes now
                                  1,    0, 0, 0, 11,   0, 0, 0,                        // machines that left
                                  2,    0, 0, 0,                                       // stale_max
                                  0,    0, 0, 0, 9,    2, 0, 0, 0, 0x02, 11, 0, 0, 0,  // round 0: unit, roster
                                  0x02,                                                // counted
                                  1,    0, 0, 0, 9,    2, 0, 0, 0, 0x01, 4,  3, 2, 1,  // round 1
                                  0x01,                                                //
                                  0xFE, 4, 0, 0, 0};  // announced, and from which round on
  std::vector<int> found;
  for (std::byte byte : saved()) found.push_back(std::to_integer<int>(byte));
  EXPECT_EQ(found, expected);
}

TEST_F(RecentRoundsTest, BytesThatDoNotFitAreRefused) {
  begin_with_three_machines();
  announce(12);
  const Bytes good = saved();
  EXPECT_EQ(rule(good, 2, 2), "none");
  EXPECT_EQ(rule(good, 3, 2), "stale_max");
  EXPECT_EQ(rule(good, 2, 3), "round");
  for (size_t length = 0; length < good.size(); ++length)
    EXPECT_EQ(rule(std::span(good).first(length), 2, 2), "length") << length;
  const auto with = [&](size_t from_the_end, int value) {
    Bytes changed = good;
    changed[changed.size() - from_the_end] = static_cast<std::byte>(value);
    return rule(changed, 2, 2);
  };
  EXPECT_EQ(with(4, 5), "unit") << "later than any announcement could say";
  EXPECT_EQ(with(4, 0), "unit") << "in force, and round 0 has another";
  EXPECT_EQ(with(6, 0x0F), "bitmap") << "a lane counted that there was not";
}

TEST_F(RecentRoundsTest, OfVersionOneKnowNoRostersOfRoundsBefore) {
  begin_with_three_machines();
  go_on(3);
  ByteWriter writer;
  rounds_.save_roster(writer);
  ByteReader reader(writer.bytes());
  const RecentRounds back = RecentRounds::restore_roster(reader, 2, 9, 4);
  EXPECT_EQ(back.roster(), rounds_.roster());
  EXPECT_EQ(back.unit(), 9);
  ASSERT_TRUE(back.roster_of(3));
  EXPECT_TRUE(back.roster_of(3)->empty()) << "no lane that a late vote could be of";
}

}  // namespace
}  // namespace tessera::test
