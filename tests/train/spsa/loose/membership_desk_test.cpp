// A machine's own number: proposed, kept over a kill, given up.

#include "train/spsa/loose/membership_desk.h"

#include <gmock/gmock.h>

#include "core/direction.h"
#include "steplog/samples.h"
#include "support/error_text.h"
#include "support/paths.h"
#include "train/spsa/loose/memory_engine.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Optional;
using Kind = RosterRequest::Kind;
using Seconds = RoundClock::Seconds;

RunId run_id(int first = 7) {
  RunId run;
  run.sha256[0] = static_cast<std::byte>(first);
  return run;
}

class Desk : public testing::Test {
 protected:
  MembershipDesk desk(const std::string& node = "a", const RunId& run = run_id()) {
    return MembershipDesk(folder_ / "node.json", node, run_name_, run, [this] {
      EXPECT_FALSE(draws_.empty()) << "no number is drawn here";
      const uint32_t drawn = draws_.front();
      draws_.pop_front();
      return drawn;
    });
  }
  /// A record of the next round with these changes.
  void go_on(std::vector<RosterChange> changes) {
    Record record;
    record.round = record.seed_round = recent_.next_round();
    record.roster = std::move(changes);
    record.lanes = 4;
    record.present.resize(4);
    recent_.accept(record);
  }
  void ask(MembershipDesk& desk, double at, double patience = 3) {
    desk.ask(engine_, recent_, MembershipDesk::Time{} + std::chrono::milliseconds(static_cast<int>(at * 1000)),
             Seconds(patience), [this](uint32_t machine) {
               using Owner = MembershipDesk::Owner;
               return anothers_.contains(machine) ? Owner::another
                      : lost_.contains(machine)   ? Owner::nobody
                                                  : Owner::this_node;
             });
  }
  /// "join 40", of what was sent since the last call.
  std::vector<std::string> sent() {
    std::vector<std::string> all;
    for (const auto& message : server_.controls) {
      const auto decoded = decode_control_message(message.bytes);
      const auto request = std::get<RosterRequest>(std::get<ControlMessage>(decoded));
      EXPECT_EQ(request.run, run_id().prefix());
      all.push_back((request.kind == Kind::join ? "join " : "leave ") + std::to_string(request.machine));
    }
    server_.controls.clear();
    return all;
  }

  TemporaryFolder folder_;
  MemoryServer server_;
  MemoryEngine engine_{server_, "a"};
  RecentRounds recent_{2, 9};
  std::deque<uint32_t> draws_;
  std::set<uint32_t> anothers_;
  std::set<uint32_t> lost_;  // whose the engine does not know any more
  std::string run_name_ = "first";
};

TEST_F(Desk, AsksUntilARecordAnswers) {
  draws_ = {40};
  MembershipDesk mine = desk();
  EXPECT_EQ(mine.lane(recent_), std::nullopt);
  ask(mine, 10);
  EXPECT_THAT(sent(), ElementsAre("join 40"));
  ask(mine, 12.9);
  EXPECT_THAT(sent(), IsEmpty());
  ask(mine, 13.1);
  EXPECT_THAT(sent(), ElementsAre("join 40")) << "the same number: the first message may have been lost";
  go_on({{2, true, 40}});
  EXPECT_THAT(mine.lane(recent_), Optional(2u));
  ask(mine, 99);
  EXPECT_THAT(sent(), IsEmpty());
}

TEST_F(Desk, DrawsNoNumberThatIsReservedTakenOrUsedUp) {
  go_on({{0, true, 50}, {1, true, 51}});
  go_on({{1, false, 51}});
  draws_ = {kReservedMachines, 0xffffffff, 50, 51, 40};
  MembershipDesk mine = desk();
  ask(mine, 10);
  EXPECT_THAT(sent(), ElementsAre("join 40"));
}

TEST_F(Desk, TakesANewNumberAtOnceWhereItsOwnIsAnothers) {
  draws_ = {40, 41};
  MembershipDesk mine = desk();
  ask(mine, 10);
  anothers_ = {40};
  ask(mine, 10.1);
  EXPECT_THAT(sent(), ElementsAre("join 40", "join 41"));
  EXPECT_EQ(mine.machine(), 41u);
}

TEST_F(Desk, SaysItsNumberAgainWhereTheEngineHasLostWhoProposedIt) {
  draws_ = {40};
  MembershipDesk mine = desk();
  ask(mine, 10);
  go_on({{0, true, 40}});
  sent();
  ask(mine, 20);
  EXPECT_THAT(sent(), IsEmpty()) << "it has a lane, and all know whose the number is";
  lost_ = {40};
  ask(mine, 30);
  EXPECT_THAT(sent(), ElementsAre("join 40")) << "without it nobody takes its votes";
  ask(mine, 31);
  EXPECT_THAT(sent(), IsEmpty());
}

TEST_F(Desk, TakesANewNumberWhenItsLaneIsGone) {
  draws_ = {40, 41};
  MembershipDesk mine = desk();
  ask(mine, 10);
  go_on({{0, true, 40}});
  mine.note_vote(1, bytes_of({1}));
  mine.note_vote(6, bytes_of({6}));
  go_on({{0, false, 40}});
  EXPECT_EQ(mine.lane(recent_), std::nullopt);
  EXPECT_FALSE(mine.may_vote(5));
  ask(mine, 10.1);
  EXPECT_THAT(sent(), ElementsAre("join 40", "join 41"));
  EXPECT_TRUE(mine.may_vote(5)) << "a new machine has voted nowhere";
  EXPECT_EQ(mine.vote_of(6), nullptr) << "what the other sent was its own";
}

TEST_F(Desk, GoesOnWithItsNumberAfterAKill) {
  draws_ = {40};
  {
    MembershipDesk mine = desk();
    ask(mine, 10);
    go_on({{1, true, 40}});
    mine.note_vote(17, bytes_of({17}));
  }
  MembershipDesk again = desk();
  EXPECT_THAT(again.lane(recent_), Optional(1u));
  EXPECT_FALSE(again.may_vote(17)) << "whether it was sent or not: another vote would be of the same directions";
  EXPECT_FALSE(again.may_vote(16));
  EXPECT_TRUE(again.may_vote(18));
  EXPECT_THAT(again.vote_of(17), testing::Pointee(bytes_of({17}))) << "the same bytes may be sent again";
  EXPECT_EQ(again.vote_of(16), nullptr);
  EXPECT_EQ(again.vote_of(18), nullptr);
  ask(again, 20);
  EXPECT_THAT(sent(), ElementsAre("join 40"));
}

TEST_F(Desk, AsksAgainWithTheNumberThatWasNotAnsweredBeforeAKill) {
  draws_ = {40};
  {
    MembershipDesk mine = desk();
    ask(mine, 10);
  }
  MembershipDesk again = desk();
  ask(again, 11);
  EXPECT_THAT(sent(), ElementsAre("join 40", "join 40"));
}

TEST_F(Desk, KnowsItsNumberBeforeItIsSent) {
  draws_ = {40, 41};
  MembershipDesk mine = desk();
  ask(mine, 10);
  EXPECT_EQ(NodeFile::read(folder_ / "node.json")->machine, 40u);
  mine.note_vote(3, bytes_of({3}));
  EXPECT_EQ(NodeFile::read(folder_ / "node.json")->last_seed_round, 3);
}

TEST_F(Desk, DrawsAnewForAnotherRunOrNode) {
  draws_ = {40, 41, 42};
  MembershipDesk mine = desk();
  ask(mine, 10);
  mine.note_vote(9, bytes_of({9}));
  MembershipDesk other_node = desk("b");
  EXPECT_TRUE(other_node.may_vote(0));
  ask(other_node, 10);
  EXPECT_EQ(other_node.machine(), 41u);
  MembershipDesk other_run = desk("b", run_id(8));
  EXPECT_EQ(other_run.lane(recent_), std::nullopt);
  EXPECT_TRUE(other_run.may_vote(0));
  ask(other_run, 10);
  EXPECT_EQ(other_run.machine(), 42u);
}

TEST_F(Desk, LeavesWithItsNumberAndSaysNothingWithoutOne) {
  draws_ = {40};
  MembershipDesk mine = desk();
  mine.leave(engine_);
  EXPECT_THAT(sent(), IsEmpty());
  ask(mine, 10);
  mine.leave(engine_);
  EXPECT_THAT(sent(), ElementsAre("join 40", "leave 40"));
}

TEST_F(Desk, RefusesADamagedFile) {
  write_file(folder_ / "node.json", "{\"name\": \"a\"");
  EXPECT_THAT(error_text([&] { desk(); }), testing::HasSubstr("node.json"));
}

TEST_F(Desk, RefusesItsRunUnderAnotherNameAtTheServer) {
  draws_ = {40};
  MembershipDesk mine = desk();
  ask(mine, 10);
  run_name_ = "second";
  const std::string fault = error_text([&] { (void)desk(); });
  EXPECT_THAT(fault, HasSubstr("this folder's run is \"first\" at the server, and spsa.name is \"second\""));
}

}  // namespace
}  // namespace tessera
