// Votes on their way into a record: which count, and where the others are counted.

#include <gmock/gmock.h>

#include "train/spsa/replicas.h"
#include "train/spsa/vote_box.h"

namespace tessera {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::Pair;

class Box : public testing::Test {
 protected:
  Box() : replica_(header(), pool_.params()), box_(run()) { go_on({}, {{0, true, 40}, {1, true, 41}, {2, true, 42}}); }

  static RunHeader header() {
    OwnPool own;
    RunHeader h = header_of(own);
    h.stale_max = 2;
    h.m = 2;
    h.terms.emplace();
    return h;
  }
  static RunId run() {
    RunId id;
    id.sha256[0] = std::byte{7};
    return id;
  }
  static Vote vote(uint32_t machine, uint32_t seed_round, int lag = 0) {
    Vote vote;
    vote.run = run().prefix();
    vote.machine = machine;
    vote.seed_round = seed_round;
    vote.lag = static_cast<uint8_t>(lag);
    vote.bytes = {0x11, 0x92};
    return vote;
  }
  void take(const Vote& vote, bool is_of_its_sender = true) {
    box_.take(replica_, encode(vote), [&](uint32_t machine) { return is_of_its_sender && machine == vote.machine; });
  }
  /// Why the one vote was dropped; "taken" where it was not.
  std::string verdict(const Vote& vote, bool is_of_its_sender = true) {
    const auto before = box_.dropped();
    take(vote, is_of_its_sender);
    for (size_t i = 0; i < before.size(); ++i)
      if (box_.dropped()[i] != before[i]) return std::string(VoteBox::kReasons[i]);
    return "taken";
  }
  /// Packs what is in the box, and other votes, and goes on behind it.
  Record go_on(const RoundVotes& votes, std::vector<RosterChange> roster = {}) {
    const Record record = pack_round(replica_, run(), tip_, votes, std::move(roster), {1e-3f, 1});
    tip_.advance(encode(record));
    replica_.apply(context_.ctx, record);
    box_.forget(replica_);
    return record;
  }
  Record go_on() { return go_on(box_.votes_of(replica_)); }

  OwnPool pool_;
  Replica replica_;
  VoteBox box_;
  OwnContext context_;
  ChainTip tip_;
};

TEST_F(Box, DropsAVoteByTheReasonThatItBreaks) {
  go_on();
  go_on();
  go_on();
  ASSERT_EQ(replica_.round(), 4u);
  EXPECT_EQ(verdict(vote(40, 4)), "taken");
  EXPECT_EQ(verdict(vote(40, 4)), "twice");
  EXPECT_EQ(verdict(vote(41, 2)), "taken") << "two rounds late";
  EXPECT_EQ(verdict(vote(41, 1)), "stale");
  EXPECT_EQ(verdict(vote(41, 3, 1)), "taken") << "of the weights of round 2";
  EXPECT_EQ(verdict(vote(42, 3, 2)), "stale") << "of the weights of round 1";
  EXPECT_EQ(verdict(vote(42, 4, 3)), "stale");
  EXPECT_EQ(verdict(vote(42, 5)), "taken") << "one round early";
  EXPECT_EQ(verdict(vote(42, 6)), "round");
  EXPECT_EQ(verdict(vote(99, 3)), "sender") << "never had a lane";
  EXPECT_EQ(verdict(vote(42, 4), false), "sender");
  Vote foreign = vote(42, 4);
  foreign.run ^= 1;
  EXPECT_EQ(verdict(foreign), "run");
  Vote longer = vote(42, 4);
  longer.bytes.push_back(1);
  EXPECT_EQ(verdict(longer), "form");
  const auto before = box_.dropped_in_all();
  box_.take(replica_, Bytes(5));
  EXPECT_EQ(box_.dropped_in_all(), before + 1);
}

TEST_F(Box, ALateVoteStandsInOneRecordOnly) {
  take(vote(40, 1));
  go_on();  // round 1, with machine 40 alone
  EXPECT_EQ(verdict(vote(40, 1)), "twice") << "it is in the record";
  take(vote(41, 1));
  take(vote(40, 2));
  const Record record = go_on();
  ASSERT_EQ(record.extra.size(), 1u);
  EXPECT_EQ(record.extra[0].seed_round, 1u);
  EXPECT_THAT(record.extra[0].present, ElementsAre(false, true, false));
  EXPECT_THAT(record.present, ElementsAre(true, false, false));
  EXPECT_EQ(verdict(vote(41, 1)), "twice") << "it is in an extra group";
  EXPECT_TRUE(go_on().extra.empty());
}

TEST_F(Box, KeepsVotesThatTheWinnerDidNotHaveForTheNextRecord) {
  take(vote(40, 1));
  take(vote(41, 1));
  RoundVotes winners;  // another packer had 40 and 42
  winners.now[40] = vote(40, 1);
  winners.now[42] = vote(42, 1);
  go_on(winners);
  const RoundVotes left = box_.votes_of(replica_);
  EXPECT_TRUE(left.now.empty());
  ASSERT_EQ(left.late.size(), 1u);
  EXPECT_THAT(left.late.at(1), ElementsAre(Pair(41, testing::_)));
}

TEST_F(Box, AnEarlyVoteCountsInItsOwnRound) {
  take(vote(40, 2));
  EXPECT_EQ(box_.present(replica_, replica_.roster()), 0);
  EXPECT_TRUE(box_.votes_of(replica_).now.empty());
  go_on();
  EXPECT_EQ(box_.present(replica_, replica_.roster()), 1);
  EXPECT_THAT(go_on().present, ElementsAre(true, false, false));
}

TEST_F(Box, AVoteOfAMachineWhoseLaneWasGivenAwayCountsForItsOwnRound) {
  go_on({}, {{1, false, 41}, {1, true, 77}});  // round 1: 77 has lane 1 from here on
  EXPECT_EQ(verdict(vote(41, 1)), "sender") << "behind record 1 the lane is 77's";
  EXPECT_EQ(verdict(vote(41, 0)), "taken") << "in round 0 it was its own";
  EXPECT_EQ(verdict(vote(77, 0)), "sender");
  const Record record = go_on();
  ASSERT_EQ(record.extra.size(), 1u);
  EXPECT_EQ(record.extra[0].seed_round, 0u);
  EXPECT_THAT(record.extra[0].present, ElementsAre(false, true, false));
}

TEST_F(Box, CountsVotesOfThoseWhoAreAwaited) {
  take(vote(40, 1));
  take(vote(41, 1));
  EXPECT_EQ(box_.present(replica_, replica_.roster()), 2);
  EXPECT_EQ(box_.present(replica_, {40, std::nullopt, 42}), 1) << "41 leaves with the next record";
}

TEST_F(Box, GetsRidOfWhatIsTooOld) {
  take(vote(99, 1));  // it may join with record 1, and does not
  EXPECT_EQ(box_.present(replica_, replica_.roster()), 0) << "only machines with a lane count";
  EXPECT_THAT(go_on().present, ElementsAre(false, false, false));
  for (int t = 0; t < 4; ++t) EXPECT_TRUE(go_on().extra.empty());
}

TEST_F(Box, LeavesOutAVoteForItsDigest) {
  take(vote(40, 1));
  take(vote(41, 1));
  box_.drop_for_digest(1, 40);
  box_.drop_for_digest(1, 42);  // has not voted
  EXPECT_THAT(go_on().present, ElementsAre(false, true, false));
  EXPECT_EQ(box_.dropped_in_all(), 1);
}

}  // namespace
}  // namespace tessera
