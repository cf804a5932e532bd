// A link's arithmetic: how long a message takes, what waits for what, and what is lost.

#include "train/spsa/simulate/sim_link.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace tessera {
namespace {

constexpr SimTime kMillisecond = kSimSecond / 1000;

LinkTerms terms(double loss = 0, SimTime jitter = 0) {
  return {.latency = 50 * kMillisecond, .jitter = jitter, .loss = loss, .bytes_per_second = 125'000};  // 1 Mbit/s
}

TEST(SimLink, AMessageTakesItsBytesAtTheRateAndThenTheLatency) {
  SimLink link(terms(), 1);
  EXPECT_EQ(link.send(3 * kSimSecond, 125), 3 * kSimSecond + kMillisecond + 50 * kMillisecond);
}

TEST(SimLink, AMessageWaitsUntilTheLinkIsFree) {
  SimLink link(terms(), 1);
  link.send(0, 12'500);  // 100 ms
  EXPECT_EQ(link.send(0, 1250), 110 * kMillisecond + 50 * kMillisecond);
  EXPECT_EQ(link.send(kSimSecond, 125), kSimSecond + 51 * kMillisecond) << "nothing waits in front of it any more";
}

TEST(SimLink, JitterIsUniformAndLetsCoreMessagesPassEachOther) {
  SimLink link(terms(0, 20 * kMillisecond), 7);
  double sum = 0;
  bool has_passed = false;
  SimTime last = 0;
  constexpr int kMessages = 4000;
  for (int i = 0; i < kMessages; ++i) {
    const SimTime there = *link.send(0, 0);
    EXPECT_GE(there, 50 * kMillisecond);
    EXPECT_LT(there, 70 * kMillisecond);
    has_passed = has_passed || there < last;
    last = there;
    sum += seconds_of(there - 50 * kMillisecond) / 0.02;
  }
  EXPECT_TRUE(has_passed);
  EXPECT_NEAR(sum / kMessages, 0.5, 4 * std::sqrt(1.0 / 12 / kMessages));
}

TEST(SimLink, TheShareOfTheTermsIsLost) {
  SimLink link(terms(0.1), 3);
  int lost = 0;
  constexpr int kMessages = 10'000;
  for (int i = 0; i < kMessages; ++i) lost += !link.send(0, 0);
  EXPECT_NEAR(lost, 1000, 4 * std::sqrt(kMessages * 0.1 * 0.9));
}

TEST(SimLink, ALostCoreMessageHasTakenItsTimeOfTheLink) {
  SimLink sure(terms(), 3), lossy(terms(0.5), 3);
  int compared = 0;
  for (int i = 0; i < 50; ++i) {
    const auto there = lossy.send(0, 1250), expected = sure.send(0, 1250);
    if (there) {
      EXPECT_EQ(there, expected) << "message " << i;
    }
    compared += there.has_value();
  }
  EXPECT_GT(compared, 10);
  EXPECT_LT(compared, 40);
}

TEST(SimLink, AStreamsMessageComesARetransmissionLaterForEachTimeThatItIsLost) {
  std::set<SimTime> delays;
  double sum = 0;
  constexpr int kLinks = 4000;
  for (uint64_t key = 0; key < kLinks; ++key) {
    SimLink link(terms(0.25), key);
    const SimTime delay = link.send_safely(0, 0) - 50 * kMillisecond;
    EXPECT_EQ(delay % kRetransmission, 0);
    delays.insert(delay / kRetransmission);
    sum += static_cast<double>(delay / kRetransmission);
  }
  EXPECT_GE(delays.size(), 4u) << "it may be lost again";
  EXPECT_NEAR(sum / kLinks, 0.25 / 0.75, 4 * std::sqrt(0.25 / 0.75 / 0.75 / kLinks));
}

TEST(SimLink, MessagesOfAStreamDoNotPassEachOther) {
  SimLink link(terms(0.3, 40 * kMillisecond), 11);
  SimTime last = 0;
  for (int i = 0; i < 500; ++i) {
    const SimTime there = link.send_safely(i * kMillisecond, 10);
    EXPECT_GE(there, last);
    last = there;
  }
}

TEST(SimLink, DrawsAreOfTheKeyAndTheMessageAlone) {
  SimLink link(terms(0.2, 40 * kMillisecond), 5), same(terms(0.2, 40 * kMillisecond), 5),
      other(terms(0.2, 40 * kMillisecond), 6);
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    const auto there = link.send(0, 10);
    EXPECT_EQ(there, same.send(0, 10));
    different += there != other.send(0, 10);
  }
  EXPECT_GT(different, 90);
}

}  // namespace
}  // namespace tessera
