// When a machine packs: what its own clock has seen of the last rounds, who has voted, and its place among the others.

#include "train/spsa/loose/round_clock.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

using Seconds = RoundClock::Seconds;
using Time = RoundClock::Clock::time_point;

/// A clock that the test moves.
class Rounds : public testing::Test {
 protected:
  static Time at(double seconds) {
    return Time{} + std::chrono::duration_cast<RoundClock::Clock::duration>(Seconds(seconds));
  }
  /// The next rounds last so many seconds each; then one more begins.
  void last(std::initializer_list<double> rounds) {
    for (const double seconds : rounds) {
      clock_.begin(round_++, at(now_));
      now_ += seconds;
    }
    clock_.begin(round_, at(now_));
  }
  bool may_pack(double seconds_later, int64_t present, int64_t lanes, int64_t place = 0) {
    return clock_.may_pack(at(now_ + seconds_later), present, lanes, place);
  }
  double deadline() const { return clock_.deadline().count(); }

  RoundClock clock_{0.5, 3, Seconds(60), 8};
  uint32_t round_ = 0;
  double now_ = 1000;
};

TEST_F(Rounds, TheFirstHasADeadlineOfItsOwn) {
  last({});
  EXPECT_EQ(deadline(), 60);
  last({0.5});
  EXPECT_NEAR(deadline(), 1.5, 1e-6) << "three times the only round";
}

TEST_F(Rounds, GiveTheLowerMedianOfTheLastSixteen) {
  last({1, 9, 3, 2});
  EXPECT_NEAR(deadline(), 6, 1e-6) << "of 1 2 3 9 the lower middle one, not 2.5";
  last({5});
  EXPECT_NEAR(deadline(), 9, 1e-6) << "of 1 2 3 5 9";
  last({1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  EXPECT_NEAR(deadline(), 3, 1e-6);
  last({7, 7, 7, 7, 7, 7, 7, 7});
  EXPECT_NEAR(deadline(), 3, 1e-6) << "eight of sixteen";
  last({7});
  EXPECT_NEAR(deadline(), 21, 1e-6) << "nine of sixteen: what was before is forgotten";
}

TEST_F(Rounds, ThatAreShortLeaveATenthOfASecondToAll) {
  last({1e-3, 1e-3, 1e-3});
  EXPECT_EQ(deadline(), 0.1);
}

TEST_F(Rounds, BeginOnce) {
  last({2, 2});
  EXPECT_FALSE(may_pack(5.9, 2, 3));
  clock_.begin(round_, at(now_ + 5.9));  // a record that was no round's came
  EXPECT_NEAR(clock_.waited(at(now_ + 5.9)).count(), 5.9, 1e-6);
  EXPECT_TRUE(may_pack(6.1, 2, 3));
}

TEST_F(Rounds, ThatWentByTogetherTeachNothing) {
  last({2, 2, 2});
  clock_.begin(round_ + 40, at(now_ + 1e-3));  // read from the log, after an absence
  EXPECT_NEAR(deadline(), 6, 1e-6);
  clock_.begin(round_ + 41, at(now_ + 9));  // one that this machine was there for
  last({});
  EXPECT_NEAR(deadline(), 6, 1e-6);
}

TEST_F(Rounds, ThatWaitedForSomebodyAwayMakeNoLongerDeadlines) {
  last({2});
  for (int k = 0; k < 20; ++k) {
    EXPECT_FALSE(may_pack(0.5, 1, 3));
    EXPECT_FALSE(may_pack(2, 2, 3)) << "the last vote of two";
    EXPECT_FALSE(may_pack(5.9, 2, 3));
    ASSERT_TRUE(may_pack(6.1, 2, 3)) << "round " << k;
    last({6.1});
    ASSERT_NEAR(deadline(), 6, 1e-6) << "not three times as long in each round";
  }
}

TEST_F(Rounds, WithAllVotesLastUntilTheirRecordIsRead) {
  last({2});
  for (int k = 0; k < 16; ++k) {
    EXPECT_TRUE(may_pack(0.01, 3, 3)) << "votes that were measured ahead come at once";
    last({4});  // and the machines are busy with those of the next round
  }
  EXPECT_NEAR(deadline(), 12, 1e-6);
}

TEST_F(Rounds, WithoutAVoteAtTheStartKeepTheFirstDeadline) {
  for (int k = 0; k < 8; ++k) {
    last({});
    EXPECT_FALSE(may_pack(59, 2, 3));
    EXPECT_TRUE(may_pack(61, 2, 3)) << k;
    last({61});
  }
}

TEST_F(Rounds, DoNotCountHowLongTheEngineWasAway) {
  last({2});
  now_ += 600;
  clock_.begin_anew(at(now_));
  EXPECT_FALSE(may_pack(5.9, 2, 3)) << "the deadline begins anew, too";
  EXPECT_TRUE(may_pack(1, 3, 3));
  last({2});
  EXPECT_NEAR(deadline(), 6, 1e-6);
}

TEST_F(Rounds, FollowMachinesThatBecomeSlower) {
  last({1, 1, 1});
  for (int k = 0; k < 16; ++k) {
    EXPECT_FALSE(may_pack(9.9, 1, 3)) << "no quorum";
    EXPECT_TRUE(may_pack(10, 2, 3) || deadline() > 10);
    last({10});
  }
  EXPECT_NEAR(deadline(), 30, 1e-6);
}

TEST_F(Rounds, ArePackedAtOnceByTheFirstWhenAllHaveVoted) {
  last({1});
  EXPECT_TRUE(may_pack(0, 3, 3));
  EXPECT_FALSE(may_pack(0, 2, 3));
  EXPECT_TRUE(may_pack(0, 0, 0)) << "the first machine of a run makes the record that it joins by";
}

TEST_F(Rounds, WaitForTheQuorumEightDeadlinesLong) {
  last({1});
  EXPECT_FALSE(may_pack(2.9, 3, 5));
  EXPECT_TRUE(may_pack(3.1, 3, 5));
  EXPECT_TRUE(may_pack(3.1, 2, 4)) << "half of four are two";
  EXPECT_FALSE(may_pack(23.9, 2, 5)) << "half of five are three";
  EXPECT_TRUE(may_pack(24.1, 2, 5)) << "most are gone for good: their lanes have to be freed by somebody";
  EXPECT_FALSE(may_pack(24.1, 2, 5, 1)) << "in their order";
  EXPECT_FALSE(may_pack(23.9, 0, 4));
  EXPECT_TRUE(may_pack(24.1, 0, 4)) << "for a machine that asks for a lane";
}

TEST_F(Rounds, NeedOneVoteWhateverTheQuorum) {
  clock_ = RoundClock(1e-3, 3, Seconds(60), 8);
  last({1});
  EXPECT_FALSE(may_pack(3.1, 0, 3));
  EXPECT_TRUE(may_pack(3.1, 1, 3));
}

TEST_F(Rounds, WaitForAllWithAQuorumOfOne) {
  clock_ = RoundClock(1, 3, Seconds(60), 8);
  last({1});
  EXPECT_FALSE(may_pack(23.9, 2, 3));
  EXPECT_TRUE(may_pack(0, 3, 3));
}

TEST_F(Rounds, AreLeftToThoseWithALowerPlace) {
  last({2});  // the deadline is 6 s, a tenth of it 0.6 s
  EXPECT_FALSE(may_pack(0, 3, 3, 1)) << "the last vote";
  EXPECT_FALSE(may_pack(0.55, 3, 3, 1));
  EXPECT_TRUE(may_pack(0.65, 3, 3, 1));
  EXPECT_FALSE(may_pack(6.55, 2, 3, 1)) << "behind the deadline the patience comes on top";
  EXPECT_TRUE(may_pack(6.65, 2, 3, 1));
  last({2});
  EXPECT_FALSE(may_pack(1, 2, 3, 200));
  EXPECT_FALSE(may_pack(1.5, 3, 3, 200)) << "the last vote";
  EXPECT_FALSE(may_pack(2.45, 3, 3, 200));
  EXPECT_TRUE(may_pack(2.55, 3, 3, 200)) << "one second at most, however many are before";
}

}  // namespace
}  // namespace tessera
