// What happens next: by time, then by node, then by kind, then in the order in which it was added.

#include "train/spsa/simulate/event_queue.h"

#include <gmock/gmock.h>

#include <string>

#include "core/error.h"

namespace tessera {
namespace {

using testing::ElementsAre;
using Kind = EventQueue::Kind;

class Queue : public testing::Test {
 protected:
  void add(SimTime at, uint32_t node, Kind kind, const std::string& name) {
    queue_.add(at, node, kind, [this, name] { happened_.push_back(name); });
  }
  void run() {
    while (queue_.run_next()) {
    }
  }
  EventQueue queue_;
  std::vector<std::string> happened_;
};

TEST_F(Queue, EventsOfOneTimeHappenByNodeAndThenByKind) {
  add(7, 2, Kind::goes, "node 2 goes");
  add(7, 1, Kind::wakes, "node 1 wakes");
  add(7, 1, Kind::record, "record to node 1");
  add(6, 9, Kind::wakes, "before");
  run();
  EXPECT_THAT(happened_, ElementsAre("before", "record to node 1", "node 1 wakes", "node 2 goes"));
}

TEST_F(Queue, EqualEventsHappenInTheOrderInWhichTheyWereAdded) {
  std::vector<std::string> names;
  for (int i = 0; i < 100; ++i) names.push_back(std::to_string(i));
  for (const std::string& name : names) add(5, 1, Kind::wakes, name);
  run();
  EXPECT_EQ(happened_, names);
}

TEST_F(Queue, WhatAnEventAddsForNowHappensBeforeTimeGoesOn) {
  queue_.add(1, 0, Kind::goes, [&] {
    add(queue_.now(), 0, Kind::wakes, "at once");
    add(queue_.now() + 1, 0, Kind::wakes, "later");
  });
  add(1, 5, Kind::goes, "another node");
  run();
  EXPECT_THAT(happened_, ElementsAre("at once", "another node", "later"));
  EXPECT_EQ(queue_.now(), 2);
}

TEST_F(Queue, NothingIsAddedForATimeThatIsOver) {
  add(5, 0, Kind::wakes, "");
  run();
  EXPECT_THROW(add(4, 0, Kind::wakes, ""), InternalError);
}

}  // namespace
}  // namespace tessera
