// The simulated server, and a node's engine at it: one log with compare-and-set, votes for those who pack, control
// messages that are kept.

#include "train/spsa/simulate/star.h"

#include <gmock/gmock.h>

#include "train/spsa/simulate/simulated_engine.h"

namespace tessera {
namespace {

using testing::ElementsAre;
using Append = LogEngine::Append;

constexpr SimTime kWay = kSimSecond / 10;

Bytes bytes(char c) { return Bytes(4, static_cast<std::byte>(c)); }

class SimulatedServer : public testing::Test {
 protected:
  SimulatedServer() {
    for (uint32_t place = 0; place < 3; ++place) {
      engines_.push_back(std::make_unique<SimulatedEngine>(star_, queue_, place, [](SimTime) {}));
      star_.connect(place, 0, *engines_[place], "n" + std::to_string(place), place < 2);
      star_.hear_votes(place);
    }
  }
  void run_to(SimTime time) {
    queue_.add(time, 99, EventQueue::Kind::wakes, [] {});
    while (queue_.now() < time) queue_.run_next();
  }
  SimulatedEngine& engine(size_t place) { return *engines_[place]; }
  std::vector<Bytes> votes(size_t place) {
    std::vector<Bytes> all;
    for (const LogEngine::Sent& sent : engine(place).take_sent_votes()) all.push_back(sent.bytes);
    return all;
  }

  EventQueue queue_;
  Star star_{queue_, {.latency = kWay, .jitter = 0, .loss = 0, .bytes_per_second = 1e12}, 1, 3};
  std::vector<std::unique_ptr<SimulatedEngine>> engines_;
};

TEST_F(SimulatedServer, ARecordIsTakenWhenItIsThereAndReadAWayLater) {
  EXPECT_EQ(engine(0).append(0, bytes('a')), Append::unknown);
  EXPECT_TRUE(engine(0).is_appending());
  run_to(kWay - 1);
  EXPECT_TRUE(star_.records().empty());
  run_to(kWay);
  EXPECT_THAT(star_.records(), ElementsAre(bytes('a')));
  run_to(2 * kWay - 1);
  EXPECT_EQ(engine(1).log_state().records, 0u);
  EXPECT_TRUE(engine(1).read(0).empty());
  run_to(2 * kWay + kWay / 100);
  EXPECT_EQ(engine(1).log_state().records, 1u);
  EXPECT_THAT(engine(1).read(0), ElementsAre(bytes('a')));
  EXPECT_EQ(engine(0).append(0, bytes('b')), Append::won) << "it is told of the record that was sent";
  EXPECT_EQ(star_.conflicts(), 0);
}

TEST_F(SimulatedServer, OfTwoRecordsForOnePlaceTheFirstThereIsTaken) {
  engine(1).append(0, bytes('b'));
  run_to(1);
  engine(0).append(0, bytes('a'));
  run_to(3 * kWay);
  EXPECT_THAT(star_.records(), ElementsAre(bytes('b')));
  EXPECT_EQ(star_.conflicts(), 1);
  EXPECT_TRUE(engine(0).has_answer());
  EXPECT_EQ(engine(0).log_state().records, 1u);
  engine(0).hold_back(true);
  EXPECT_EQ(engine(0).log_state().records, 0u) << "the record that it lost against comes behind its answer";
  EXPECT_EQ(engine(0).append(0, bytes('a')), Append::conflict);
  engine(0).hold_back(false);
  EXPECT_EQ(engine(0).log_state().records, 1u);
  EXPECT_EQ(engine(0).append(1, bytes('c')), Append::unknown);
  run_to(6 * kWay);
  EXPECT_THAT(star_.records(), ElementsAre(bytes('b'), bytes('c')));
}

TEST_F(SimulatedServer, ARecordForAPlaceBeyondTheEndIsAConflict) {
  engine(0).append(2, bytes('a'));
  run_to(3 * kWay);
  EXPECT_TRUE(star_.records().empty());
  EXPECT_EQ(star_.conflicts(), 1);
}

TEST_F(SimulatedServer, WhileOneIsUnderWayNoOtherIsSent) {
  engine(0).append(0, bytes('a'));
  EXPECT_EQ(engine(0).append(0, bytes('b')), Append::unknown);
  run_to(5 * kWay);
  EXPECT_THAT(star_.records(), ElementsAre(bytes('a')));
  EXPECT_EQ(star_.conflicts(), 0);
}

TEST_F(SimulatedServer, VotesReachThoseWhoPackAndNameTheirNode) {
  engine(2).publish_vote(bytes('v'));
  run_to(2 * kWay - 1);
  EXPECT_TRUE(votes(0).empty());
  run_to(2 * kWay + kWay / 100);
  const auto sent = engine(0).take_sent_votes();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].node, "n2");
  EXPECT_EQ(sent[0].bytes, bytes('v'));
  EXPECT_THAT(votes(1), ElementsAre(bytes('v')));
  EXPECT_TRUE(votes(2).empty());
  EXPECT_TRUE(votes(0).empty()) << "taken once";
}

TEST_F(SimulatedServer, WhoComesLaterGetsTheRecordsAndControlMessagesBefore) {
  engine(2).publish_control(bytes('j'));
  engine(0).append(0, bytes('a'));
  run_to(3 * kWay);
  star_.disconnect(1);
  engines_[1] = std::make_unique<SimulatedEngine>(star_, queue_, 1, [](SimTime) {});
  const SimTime there = star_.connect(1, 1, engine(1), "n1b", true);
  engine(1).begin(1, 1, there);
  engine(0).append(1, bytes('b'));
  EXPECT_GE(there, 4 * kWay);
  EXPECT_EQ(engine(1).log_state().records, 0u);
  run_to(there);
  EXPECT_EQ(engine(1).log_state().records, 1u);
  const auto controls = engine(1).take_controls();
  ASSERT_EQ(controls.size(), 1u);
  EXPECT_EQ(controls[0].node, "n2");
  run_to(there + 3 * kWay);
  EXPECT_THAT(engine(1).read(1), ElementsAre(bytes('b')));
}

TEST_F(SimulatedServer, ARecordOfANodeThatWasKilledStillComes) {
  engine(0).append(0, bytes('a'));
  star_.disconnect(0);
  engines_[0].reset();
  run_to(3 * kWay);
  EXPECT_THAT(engine(1).read(0), ElementsAre(bytes('a')));
}

TEST_F(SimulatedServer, BytesAreCountedWithThoseAround) {
  engine(2).publish_vote(bytes('v'));
  run_to(3 * kWay);
  EXPECT_EQ(star_.bytes_up(), 4 + kBytesAroundUp);
  EXPECT_EQ(star_.bytes_down(), 2 * (4 + kBytesAroundDown));
}

}  // namespace
}  // namespace tessera
