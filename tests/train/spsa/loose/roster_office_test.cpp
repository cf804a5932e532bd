// Who gets a lane and who loses it. Every change is put into a record that the rules of the chain judge.

#include "train/spsa/loose/roster_office.h"

#include <gmock/gmock.h>

#include "core/direction.h"
#include "steplog/control_message.h"
#include "steplog/samples.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::IsEmpty;
using Kind = RosterRequest::Kind;

constexpr int64_t kAbsentLimit = 3;

RunId run_id() {
  RunId run;
  run.sha256[0] = std::byte{7};
  return run;
}

/// "-1:40" for machine 40 that leaves lane 1, "+0:41" for 41 that takes lane 0.
std::vector<std::string> told(const std::vector<RosterChange>& changes) {
  std::vector<std::string> all;
  for (const RosterChange& c : changes) all.push_back(fmt::format("{}{}:{}", c.add ? '+' : '-', c.lane, c.machine));
  return all;
}

class Office : public testing::Test {
 protected:
  Office() : chain_(run_id(), {.stale_max = 2, .format = 2}) {}

  void say(Kind kind, const std::string& node, uint32_t machine, uint32_t run = run_id().prefix()) {
    office_.take({node, encode(RosterRequest{kind, run, machine})});
  }
  void join(const std::string& node, uint32_t machine) { say(Kind::join, node, machine); }
  void leave(const std::string& node, uint32_t machine) { say(Kind::leave, node, machine); }
  std::vector<std::string> changes() const { return told(office_.changes(chain_.rules.rounds())); }

  /// The next round, with the changes that are due and votes of these lanes. @param late  lanes of the round before
  void go_on(const std::vector<size_t>& voted = {}, const std::vector<size_t>& late = {}) {
    Record record = chain_.next(RecordType::round);
    record.m = 1;
    record.roster = office_.changes(chain_.rules.rounds());
    const Roster behind = lanes_behind(record);
    record.lanes = static_cast<uint16_t>(behind.size());
    record.present = bits(voted, behind.size());
    record.bytes = chain_.dice.bytes(voted.size());
    if (!late.empty()) {
      const size_t lanes = chain_.rules.rounds().roster_of(record.round - 1)->size();
      record.extra.push_back(
          {record.round - 1, -1e-3f, bits(late, std::max(lanes, behind.size())), chain_.dice.bytes(late.size())});
    }
    office_.note(office_.silences_behind(record, chain_.rules.rounds()));
    chain_.add(record);
  }
  std::vector<std::optional<uint32_t>> roster() const { return chain_.rules.roster(); }

  RosterOffice office_{run_id(), kAbsentLimit};
  Chain chain_;

 private:
  static std::vector<bool> bits(const std::vector<size_t>& set, size_t size) {
    std::vector<bool> all(size);
    for (const size_t bit : set) all.at(bit) = true;
    return all;
  }
  Roster lanes_behind(const Record& record) const {
    Roster roster = chain_.rules.roster();
    for (const RosterChange& change : record.roster) {
      if (roster.size() <= change.lane) roster.resize(change.lane + 1);
      roster[change.lane] = change.add ? std::optional(change.machine) : std::nullopt;
    }
    return roster;
  }
};

TEST_F(Office, GivesLanesInTheOrderOfTheMessages) {
  join("c", 900);
  join("a", 20);
  join("b", 500);
  EXPECT_THAT(changes(), ElementsAre("+0:900", "+1:20", "+2:500"));
  go_on();
  EXPECT_THAT(changes(), IsEmpty());
  EXPECT_THAT(roster(), ElementsAre(900, 20, 500));
}

TEST_F(Office, GivesTheLowestFreeLaneInTheRecordThatFreesIt) {
  for (uint32_t k = 0; k < 4; ++k) join("n" + std::to_string(k), 40 + k);
  go_on();
  leave("n2", 42);
  leave("n1", 41);
  join("x", 7);
  EXPECT_THAT(changes(), ElementsAre("-1:41", "-2:42", "+1:7"));
  go_on({0, 1, 3});
  EXPECT_THAT(roster(), ElementsAre(40, 7, std::nullopt, 43));
  join("y", 8);
  join("z", 9);
  EXPECT_THAT(changes(), ElementsAre("+2:8", "+4:9")) << "what is free, then a new one";
}

TEST_F(Office, HearsAMessageOnce) {
  for (int k = 0; k < 3; ++k) join("a", 40);
  EXPECT_THAT(changes(), ElementsAre("+0:40"));
  go_on();
  join("a", 40);
  EXPECT_THAT(changes(), IsEmpty()) << "it has its lane";
}

TEST_F(Office, LetsANumberBelongToTheNodeThatProposedItFirst) {
  join("a", 40);
  join("b", 40);
  EXPECT_THAT(changes(), ElementsAre("+0:40"));
  EXPECT_TRUE(office_.speaks_for("a", 40));
  EXPECT_FALSE(office_.speaks_for("b", 40));
  EXPECT_FALSE(office_.speaks_for("b", 41)) << "nobody has proposed it";
  EXPECT_TRUE(office_.speaks_for("", 41)) << "an engine that knows no nodes";
  EXPECT_TRUE(office_.is_owned(40));
  EXPECT_FALSE(office_.is_owned(41));
  go_on();
  leave("b", 40);
  EXPECT_THAT(changes(), IsEmpty()) << "only its own node gives a number up";
  EXPECT_FALSE(office_.is_leaving(40));
  leave("a", 40);
  EXPECT_THAT(changes(), ElementsAre("-0:40"));
}

TEST_F(Office, PassesOverWhatIsNoRequestOfThisRun) {
  say(Kind::join, "a", 40, run_id().prefix() ^ 1);
  join("a", kReservedMachines);
  join("a", 0xffffffff);
  office_.take({"a", encode(HaveRecords{run_id().prefix(), 3, 4})});
  Bytes damaged = encode(RosterRequest{Kind::join, run_id().prefix(), 40});
  damaged[9] ^= std::byte{1};
  office_.take({"a", damaged});
  office_.take({"a", {}});
  EXPECT_THAT(changes(), IsEmpty());
  join("b", kReservedMachines - 1);
  join("c", 40);
  EXPECT_THAT(changes(), ElementsAre("+0:4294967039", "+1:40")) << "and nobody owns 40 by what was passed over";
}

TEST_F(Office, GivesNoLaneToWhoLeftBeforeTheAnswer) {
  join("a", 40);
  leave("a", 40);
  EXPECT_THAT(changes(), IsEmpty());
}

TEST_F(Office, NeverGivesANumberASecondLane) {
  join("a", 40);
  join("b", 41);
  go_on();
  leave("a", 40);
  go_on({1});
  join("a", 40);
  EXPECT_THAT(changes(), IsEmpty());
  join("a", 50);
  EXPECT_THAT(changes(), ElementsAre("+0:50"));
}

TEST_F(Office, TakesTheLaneOfWhoIsSilentSoManyRoundsInARow) {
  join("a", 40);
  join("b", 41);
  go_on();  // nobody could vote in it
  EXPECT_EQ(office_.silence(41), 0);
  go_on({0});
  go_on({0});
  EXPECT_EQ(office_.silence(41), 2);
  EXPECT_THAT(changes(), IsEmpty());
  go_on({0});
  EXPECT_THAT(changes(), ElementsAre("-1:41"));
  EXPECT_EQ(office_.silence(40), 0);
  go_on({0});
  EXPECT_EQ(office_.silence(41), 0) << "nothing is counted of who has no lane";
  EXPECT_THAT(changes(), IsEmpty()) << "it has asked once, and asks anew with another number";
}

TEST_F(Office, CountsSilenceAnewBehindEveryVoteAlsoALateOne) {
  join("a", 40);
  join("b", 41);
  go_on();
  go_on({0});
  go_on({0});
  go_on({0, 1});
  EXPECT_EQ(office_.silence(41), 0);
  go_on({0});
  go_on({0});
  EXPECT_EQ(office_.silence(41), 2);
  go_on({0}, {1});
  EXPECT_EQ(office_.silence(41), 0) << "it voted for the round before";
  EXPECT_THAT(changes(), IsEmpty());
}

TEST_F(Office, ALateVoteIsOfWhoHadTheLaneInItsRound) {
  join("a", 40);
  join("b", 41);
  go_on();
  go_on({0});
  leave("b", 41);
  join("c", 42);
  go_on({0}, {1});  // 42 takes lane 1; the late vote of lane 1 is of 41
  EXPECT_THAT(roster(), ElementsAre(40, 42));
  go_on({0});
  EXPECT_EQ(office_.silence(42), 1);
  go_on({0});
  go_on({0});
  EXPECT_THAT(changes(), ElementsAre("-1:42"));
}

TEST_F(Office, EmptiesTheRosterAndFillsItAgain) {
  join("a", 40);
  go_on();
  leave("a", 40);
  EXPECT_THAT(changes(), ElementsAre("-0:40"));
  go_on();
  EXPECT_THAT(roster(), ElementsAre(std::nullopt));
  join("b", 41);
  EXPECT_THAT(changes(), ElementsAre("+0:41"));
}

TEST_F(Office, LetsMachinesWaitWhenEveryLaneIsTaken) {
  RecentRounds full(2, 9);
  Record record;
  record.lanes = 0xFFFF;
  record.present.resize(record.lanes);
  for (uint32_t lane = 0; lane < 0xFFFF; ++lane) record.roster.push_back({lane, true, lane});
  full.accept(record);
  join("a", 70000);
  EXPECT_THAT(office_.changes(full), IsEmpty()) << "a record counts lanes in 16 bits";
  join("b", 65000);  // somebody's who has one
  leave("b", 65000);
  EXPECT_THAT(told(office_.changes(full)), ElementsAre("-65000:65000", "+65000:70000"));
}

TEST_F(Office, ANodeHasOneLaneWhateverItAsksFor) {
  for (uint32_t k = 0; k < 12; ++k) join("greedy", 40 + k);
  join("b", 90);
  EXPECT_THAT(changes(), ElementsAre("+0:51", "+1:90"));
  go_on();
  EXPECT_THAT(changes(), IsEmpty());
  // It comes again with an empty folder: its newest number takes the place of the one before.
  join("greedy", 70);
  EXPECT_THAT(changes(), ElementsAre("-0:51", "+0:70"));
  go_on();
  EXPECT_THAT(changes(), IsEmpty());
}

TEST_F(Office, WhereNodesAreNotKnownNumbersStandForThemselves) {
  join("", 40);
  join("", 41);
  EXPECT_THAT(changes(), ElementsAre("+0:40", "+1:41"));
}

}  // namespace
}  // namespace tessera
