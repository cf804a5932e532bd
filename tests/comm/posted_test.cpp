// Posted messages, alone, on ranks that are threads, and under mpirun.

#include "comm/posted.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <thread>

#include "contributions.h"
#include "core/error.h"
#include "support/thread_ranks.h"
#include "world.h"

namespace tessera::test {
namespace {

struct Ring {
  explicit Ring(const Communicator& world)
      : me(world.rank()), right((me + 1) % world.size()), left((me + world.size() - 1) % world.size()) {}
  int me, right, left;
};

/// Without the place in the source.
template <class Act> std::string complaint(Act act) {
  try {
    act();
  } catch (const InternalError& error) {
    const std::string text = error.what();
    const size_t behind = text.find("check failed: ");
    return behind == std::string::npos ? text : text.substr(text.find(": ", behind + 14) + 2);
  }
  return "";
}

TEST(Posted, MessagesOfUnequalLengthsCrossInBothDirectionsAtOnce) {
  in_every_world([](Communicator& world) {
    const Ring ring(world);
    const auto length = [](int rank, size_t unit) { return unit * static_cast<size_t>(rank + 1); };
    for (const size_t unit : {0, 1, 1000, 700'000}) {
      const auto right = bytes_of(ring.me, length(ring.me, unit)), left = bytes_of(ring.me + 50, unit / 3);
      std::vector<std::byte> from_left(length(ring.left, unit)), from_right(unit / 3);
      const Posted first = world.post_receive(from_left, ring.left, 1);
      const std::vector<Posted> others = {world.post_send(left, ring.left, 2), world.post_send(right, ring.right, 1),
                                          world.post_receive(from_right, ring.right, 2)};
      for (const Posted other : others) world.wait(other);
      world.wait(first);
      EXPECT_EQ(from_left, bytes_of(ring.left, length(ring.left, unit)));
      EXPECT_EQ(from_right, bytes_of(ring.right + 50, unit / 3));
    }
  });
}

TEST(Posted, ManyMessagesEachReachTheReceiveThatWasPostedForThem) {
  in_every_world([](Communicator& world) {
    constexpr int kMessages = 60;
    const auto length = [](int from, int to, int i) { return static_cast<size_t>((from * 7 + to * 3 + i * 37) % 300); };
    const auto content = [&](int from, int to, int i) {
      return bytes_of(from * 1000 + to * 100 + i, length(from, to, i));
    };
    std::deque<std::vector<std::byte>> sent, received;  // which do not move
    std::vector<Posted> posted;
    for (int i = 0; i < kMessages; ++i)  // three tags: each is used many times, and in order
      for (int other = 0; other < world.size(); ++other) {
        sent.push_back(content(world.rank(), other, i));
        posted.push_back(world.post_send(sent.back(), other, i % 3));
      }
    for (int i = 0; i < kMessages; ++i)
      for (int other = 0; other < world.size(); ++other) {
        received.emplace_back(length(other, world.rank(), i));
        posted.push_back(world.post_receive(received.back(), other, i % 3));
      }
    for (auto last = posted.rbegin(); last != posted.rend(); ++last) world.wait(*last);
    for (int i = 0; i < kMessages; ++i)
      for (int other = 0; other < world.size(); ++other)
        EXPECT_EQ(received[static_cast<size_t>(i * world.size() + other)], content(other, world.rank(), i));
    for (const Posted any : posted) EXPECT_TRUE(world.is_done(any));
    world.wait(posted.front());  // again
  });
}

TEST(Posted, AMessageIsDoneBeforeAnEarlierOneThatIsNotSentYet) {
  in_every_world([](Communicator& world) {
    const Ring ring(world);
    const auto mine = bytes_of(ring.me, 5000);
    std::vector<std::byte> early(5000), late(5000), none;
    const Posted first = world.post_receive(early, ring.left, 1), second = world.post_receive(late, ring.left, 2);
    const Posted sent = world.post_send(mine, ring.right, 2);
    world.wait(second);
    world.progress();
    EXPECT_FALSE(world.is_done(first));
    EXPECT_TRUE(world.is_done(second));
    EXPECT_EQ(late, bytes_of(ring.left, 5000));
    // The left one sends the other message when it knows that it was missing here.
    const std::vector<Posted> seen = {world.post_receive(none, ring.right, 3), world.post_send({}, ring.left, 3)};
    for (const Posted other : seen) world.wait(other);
    const Posted owed = world.post_send(mine, ring.right, 1);
    world.wait(first);
    EXPECT_EQ(early, bytes_of(ring.left, 5000));
    world.wait(owed);
    world.wait(sent);
  });
}

TEST(Posted, ProgressAloneEndsLongMessages) {
  in_every_world([](Communicator& world) {
    const Ring ring(world);
    const auto right = bytes_of(ring.me, 3'000'000), left = bytes_of(ring.me + 50, 2'000'000);
    std::vector<std::byte> from_left(right.size()), from_right(left.size());
    const std::vector<Posted> all = {world.post_receive(from_left, ring.left, 0),
                                     world.post_receive(from_right, ring.right, 1),
                                     world.post_send(right, ring.right, 0), world.post_send(left, ring.left, 1)};
    while (!std::all_of(all.begin(), all.end(), [&](Posted p) { return world.is_done(p); })) {
      world.progress();
      std::this_thread::yield();
    }
    EXPECT_EQ(from_left, bytes_of(ring.left, right.size()));
    EXPECT_EQ(from_right, bytes_of(ring.right + 50, left.size()));
  });
}

TEST(Posted, SchedulesAtRandomDeliverEveryMessage) {
  in_every_world([](Communicator& world) {
    const int n = world.size(), me = world.rank();
    for (uint64_t round = 0; round < 20; ++round) {
      struct Message {
        int from, to, tag;
        std::vector<std::byte> bytes, received;
      };
      std::vector<Message> all;  // every rank draws the same
      for (uint64_t i = 0; i < 40; ++i) {
        const uint64_t bits = mix64(round * 1000 + i);
        const int from = static_cast<int>(bits % n), to = static_cast<int>(bits / 64 % n);
        const size_t length = i % 8 == 0 ? 100'000 : bits >> 40 & 255;
        all.push_back({from, to, static_cast<int>(bits >> 20 & 3), bytes_of(static_cast<int>(i), length),
                       std::vector<std::byte>(length)});
      }
      std::vector<Posted> posted;
      const auto post = [&](Message& m, bool sends) {
        if (sends && m.from == me) posted.push_back(world.post_send(m.bytes, m.to, m.tag));
        if (!sends && m.to == me) posted.push_back(world.post_receive(m.received, m.from, m.tag));
        if (mix64(posted.size() + round) % 3 == 0) world.progress();
      };
      const bool sends_first = (mix64(round) >> 8 ^ static_cast<uint64_t>(me)) & 1;
      for (Message& m : all) post(m, sends_first);
      for (Message& m : all) post(m, !sends_first);
      for (size_t i = 0; i < posted.size(); ++i) world.wait(posted[(i * 17 + round) % posted.size()]);
      for (const Posted any : posted) world.wait(any);
      for (const Message& m : all) {
        if (m.to == me) {
          EXPECT_EQ(m.received, m.bytes);
        }
      }
    }
  });
}

TEST(Posted, AnotherNumberOfBytesIsNamedAndTheNextMessageArrives) {
  in_every_world([](Communicator& world) {
    const Ring ring(world);
    for (const size_t length : {0, 50, 99, 101, 20'000}) {
      const auto mine = bytes_of(ring.me, length);
      std::vector<std::byte> hundred(100, std::byte{0});
      const Posted received = world.post_receive(hundred, ring.left, 7), sent = world.post_send(mine, ring.right, 7);
      EXPECT_EQ(
          complaint([&] {
            while (!world.is_done(received)) world.progress(), std::this_thread::yield();
          }),
          fmt::format("rank {} receives 100 bytes from rank {} (tag 7), which sent {}", ring.me, ring.left, length));
      EXPECT_EQ(hundred, std::vector<std::byte>(100));
      world.wait(sent);
      world.wait(received);
      const auto next = bytes_of(ring.me + 9, 100);
      const Posted again = world.post_receive(hundred, ring.left, 7), resent = world.post_send(next, ring.right, 7);
      EXPECT_EQ(complaint([&] { world.wait(again); }), "");
      world.wait(resent);
      EXPECT_EQ(hundred, bytes_of(ring.left + 9, 100));
    }
    std::vector<std::byte> one(1);
    const Posted received = world.post_receive(one, ring.left, 7), sent = world.post_send({}, ring.right, 7);
    EXPECT_THAT(complaint([&] { world.wait(received); }), ::testing::EndsWith("which sent 0"));
    world.wait(sent);
  });
}

TEST(Posted, MessagesStayApartFromExchangesAndFromOtherCommunicators) {
  in_every_world([](Communicator& world) {
    const Ring ring(world);
    const auto part = world.split(0, world.rank());  // the same ranks
    const auto of_world = bytes_of(ring.me, 64), of_part = bytes_of(ring.me + 20, 64),
               swapped = bytes_of(ring.me + 40, 64);
    std::vector<std::byte> a(64), b(64), c(64);
    const Posted in_world = world.post_receive(a, ring.left, 0), in_part = part->post_receive(b, ring.left, 0);
    world.exchange(swapped, ring.right, c, ring.left);
    const Posted second = part->post_send(of_part, ring.right, 0), first = world.post_send(of_world, ring.right, 0);
    part->wait(in_part);
    world.wait(in_world);
    part->wait(second);
    world.wait(first);
    EXPECT_EQ(a, bytes_of(ring.left, 64));
    EXPECT_EQ(b, bytes_of(ring.left + 20, 64));
    EXPECT_EQ(c, bytes_of(ring.left + 40, 64));
  });
}

TEST(Posted, SendersCountCallsAndBytes) {
  in_every_world([](Communicator& world) {
    const auto comm = world.split(0, world.rank());
    const Ring ring(*comm);
    const std::vector<std::byte> ten(10);
    std::vector<std::byte> received(10), none;
    const std::vector<Posted> all = {comm->post_receive(received, ring.left, 0), comm->post_send(ten, ring.right, 0),
                                     comm->post_receive(none, ring.left, 1), comm->post_send({}, ring.right, 1)};
    for (const Posted any : all) comm->wait(any);
    EXPECT_EQ(comm->traffic().posted.calls, 2);
    EXPECT_EQ(comm->traffic().posted.bytes, 10);
    EXPECT_EQ(comm->traffic().total_bytes(), 10);
  });
}

TEST(Posted, RanksTagsAndLengthsOutOfRangeAreRefused) {
  in_every_world([](Communicator& world) {
    const int64_t before = world.traffic().posted.calls;
    std::vector<std::byte> one(1);
    EXPECT_EQ(complaint([&] { world.post_send(one, world.size(), 0); }),
              fmt::format("rank {} of {}", world.size(), world.size()));
    EXPECT_EQ(complaint([&] { world.post_receive(one, -1, 0); }), fmt::format("rank -1 of {}", world.size()));
    EXPECT_EQ(complaint([&] { world.post_send(one, 0, kPostedTags); }), "tag 16384, expected 0 to 16383");
    EXPECT_EQ(complaint([&] { world.post_receive(one, 0, -1); }), "tag -1, expected 0 to 16383");
    const std::span<std::byte> long_one(one.data(), kMostPostedBytes + 1);  // nobody looks at it
    EXPECT_EQ(complaint([&] { world.post_receive(long_one, 0, 0); }),
              "1073741825 bytes are posted as one message, at most 1073741824 may be");
    EXPECT_EQ(complaint([&] { (void)world.is_done(Posted{1'000'000}); }).substr(0, 15), "message 1000000");
    EXPECT_EQ(world.traffic().posted.calls, before);
  });
}

TEST(Posted, TheOnlyRankDoesNotWaitForWhatNobodySends) {
  const auto alone = self_communicator();
  std::vector<std::byte> bytes(3);
  const Posted received = alone->post_receive(bytes, 0, 4);
  EXPECT_EQ(complaint([&] { alone->wait(received); }),
            "the only rank waits for a message whose other side it has not posted");
  alone->wait(alone->post_send(bytes_of(1, 3), 0, 4));
  EXPECT_EQ(bytes, bytes_of(1, 3));
}

TEST(ThreadRanks, ARankThatFailsEndsTheOthersWhateverTheyWaitFor) {
  for (int waits = 0; waits < 3; ++waits)
    EXPECT_THROW(on_thread_ranks(3,
                                 [&](Communicator& world) {
                                   const auto part = world.split(0, world.rank());
                                   if (world.rank() == 1) throw UserError("", "this rank alone fails");
                                   std::vector<std::byte> bytes(1);
                                   if (waits == 0) world.barrier();
                                   if (waits == 1) part->barrier();
                                   if (waits == 2) part->wait(part->post_receive(bytes, 1, 0));
                                 }),
                 UserError);
}

}  // namespace
}  // namespace tessera::test
