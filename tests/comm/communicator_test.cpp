// The same suite runs alone, on ranks that are threads, and under mpirun with 2, 3, 4 ranks. Every rank computes what
// all the others contributed, so that the expected values need no communication. Only EXPECT between collectives: a
// rank that leaves a test early would leave the others waiting.

#include "comm/communicator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "contributions.h"
#include "core/error.h"
#include "support/thread_ranks.h"
#include "world.h"

namespace tessera::test {
namespace {

class WorldEnvironment : public ::testing::Environment {
 public:
  void TearDown() override { world_.reset(); }
  Communicator& world() {
    if (!world_) world_ = world_communicator();
    return *world_;
  }

 private:
  std::unique_ptr<Communicator> world_;
};

WorldEnvironment* const environment = [] {
  auto* environment = new WorldEnvironment;  // GoogleTest owns it
  ::testing::AddGlobalTestEnvironment(environment);
  return environment;
}();

}  // namespace

Communicator& world() { return environment->world(); }

void in_every_world(const std::function<void(Communicator&)>& body) {
  body(world());
  if (launched_by_mpi()) return;
  for (const int ranks : {2, 3, 4}) {
    SCOPED_TRACE(fmt::format("{} threads", ranks));
    on_thread_ranks(ranks, body);
  }
}

namespace {

// 1024 floats are the last array gathered whole; 2^20 floats are one piece, and a few more leave a piece of 3 elements.
std::vector<int64_t> counts() {
  std::vector<int64_t> counts = {0, 1, 2, 3, 1023, 1024, 1025, 4096};
  if (launched_by_mpi()) counts.insert(counts.end(), {1'000'000, (2 << 20) + 3});  // elsewhere nothing is cut
  return counts;
}

TEST(Communicator, RanksAreNumberedWithinTheirSize) {
  EXPECT_GE(world().rank(), 0);
  EXPECT_LT(world().rank(), world().size());
  EXPECT_LT(world().local_rank(), world().local_size());
  EXPECT_LE(world().local_size(), world().size());
  if (launched_by_mpi()) {
    EXPECT_EQ(world().rank(), launched_rank());
  }
}

TEST(Communicator, SumsFloatsInRankOrderBitForBit) {
  in_every_world([](Communicator& world) {
    for (const int64_t count : counts()) {
      auto values = contribution<float>(world.rank(), count);
      world.all_reduce_sum(std::span<float>(values));
      EXPECT_EQ(differing_bits(values, rank_ordered_sum<float>(world.size(), count)), 0) << count << " floats";
    }
  });
}

TEST(Communicator, SumsDoublesInRankOrderBitForBit) {
  in_every_world([](Communicator& world) {
    for (const int64_t count : counts()) {
      auto values = contribution<double>(world.rank(), count);
      world.all_reduce_sum(std::span<double>(values));
      EXPECT_EQ(differing_bits(values, rank_ordered_sum<double>(world.size(), count)), 0) << count << " doubles";
    }
  });
}

TEST(Communicator, SumsKeepNegativeZeroInfinityAndNaN) {
  in_every_world([](Communicator& world) {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const int64_t padding : {0, 5000}) {
      const bool last = world.rank() == world.size() - 1;
      std::vector<float> values(3 + padding, -0.0f);
      if (last) values[1] = infinity, values[2] = std::nanf("");
      world.all_reduce_sum(std::span<float>(values));
      EXPECT_TRUE(values[0] == 0.0f && std::signbit(values[0]));
      EXPECT_EQ(values[1], infinity);
      EXPECT_TRUE(std::isnan(values[2]));
    }
  });
}

TEST(Communicator, EveryRankHasTheSameBitsAfterASum) {
  in_every_world([](Communicator& world) {
    auto values = contribution<float>(world.rank(), 70'001);
    world.all_reduce_sum(std::span<float>(values));
    const auto gathered = world.all_gather(std::as_bytes(std::span(values)));
    for (const auto& other : gathered) EXPECT_EQ(other, gathered[0]);
  });
}

TEST(Communicator, TakesTheMaximumOfNegativeAndPositiveValues) {
  in_every_world([](Communicator& world) {
    for (const int64_t count : {0, 1, 511, 512, 513, 20'000}) {
      auto values = contribution<double>(world.rank(), count);
      world.all_reduce_max(values);
      for (int64_t i = 0; i < count; ++i) {
        double expected = adversarial(0, i);
        for (int r = 1; r < world.size(); ++r) expected = std::max(expected, adversarial(r, i));
        EXPECT_EQ(values[i], expected);
      }
    }
  });
}

TEST(Communicator, TheMaximumIsNaNWhicheverRankHasIt) {
  in_every_world([](Communicator& world) {
    std::vector<double> values(world.size(), 1.0);
    values[world.rank()] = std::nan("");
    world.all_reduce_max(values);
    for (const double value : values) EXPECT_TRUE(std::isnan(value));
  });
}

TEST(Communicator, GathersBytesOfUnequalLengthInRankOrder) {
  in_every_world([](Communicator& world) {
    for (const size_t unit : {0, 1, 1000, 300'000}) {
      // Rank 0 sends nothing, rank 1 one unit, ...
      const auto gathered = world.all_gather(bytes_of(world.rank(), unit * world.rank()));
      ASSERT_EQ(gathered.size(), static_cast<size_t>(world.size()));
      for (int r = 0; r < world.size(); ++r) EXPECT_EQ(gathered[r], bytes_of(r, unit * r));
    }
  });
}

TEST(Communicator, BroadcastsFromEachRootIntoWhateverLengthWasThere) {
  in_every_world([](Communicator& world) {
    for (int root = 0; root < world.size(); ++root) {
      for (const size_t count : {0, 1, 100'000}) {
        auto bytes = world.rank() == root ? bytes_of(root, count) : bytes_of(99, 7 * world.rank());
        world.broadcast(bytes, root);
        EXPECT_EQ(bytes, bytes_of(root, count));
      }
    }
  });
}

TEST(Communicator, RingExchangeIsARotation) {
  in_every_world([](Communicator& world) {
    const int n = world.size(), me = world.rank();
    for (const size_t count : {0, 1, 500'000}) {
      auto block = bytes_of(me, count);
      for (int step = 1; step <= n; ++step) {
        std::vector<std::byte> received(count);
        world.exchange(block, (me + 1) % n, received, (me + n - 1) % n);
        block.swap(received);
        EXPECT_EQ(block, bytes_of((me - step + n) % n, count)) << "after " << step << " steps";
      }
    }
  });
}

TEST(Communicator, SplitsIntoOddAndEvenRanksOrderedByKey) {
  in_every_world([](Communicator& world) {
    const int me = world.rank();
    const auto part = world.split(me % 2, -me);  // backwards
    const int members = (world.size() + 1 - me % 2) / 2;
    EXPECT_EQ(part->size(), members);
    EXPECT_EQ(part->rank(), members - 1 - me / 2);

    std::vector<double> ranks = {static_cast<double>(me)};
    part->all_reduce_sum(std::span<double>(ranks));
    double expected = 0;
    for (int r = me % 2; r < world.size(); r += 2) expected += r;
    EXPECT_EQ(ranks[0], expected);
    EXPECT_EQ(part->traffic().all_reduce.bytes, 8);
  });
}

TEST(Communicator, CountsCallsAndPayloadBytesExactly) {
  in_every_world([](Communicator& world) {
    const auto comm = world.split(0, 0);
    std::vector<float> floats(1'000);
    std::vector<double> doubles(3);
    std::vector<std::byte> bytes(10), received(10);
    comm->all_reduce_sum(std::span<float>(floats));
    comm->all_reduce_sum(std::span<double>(doubles));
    comm->all_reduce_max(doubles);
    comm->all_gather(bytes);
    comm->broadcast(bytes, 0);
    comm->exchange(bytes, (comm->rank() + 1) % comm->size(), received,
                   (comm->rank() + comm->size() - 1) % comm->size());
    comm->barrier();

    const Traffic& traffic = comm->traffic();
    EXPECT_EQ(traffic.all_reduce.calls, 3);
    EXPECT_EQ(traffic.all_reduce.bytes, 4'000 + 24 + 24);
    EXPECT_EQ(traffic.all_gather.calls, 1);
    EXPECT_EQ(traffic.all_gather.bytes, 10);
    EXPECT_EQ(traffic.broadcast.calls, 1);
    EXPECT_EQ(traffic.broadcast.bytes, comm->rank() == 0 ? 10 : 0);
    EXPECT_EQ(traffic.exchange.calls, 1);
    EXPECT_EQ(traffic.exchange.bytes, 10);
    EXPECT_EQ(traffic.total_bytes(), 4'048 + 10 + traffic.broadcast.bytes + 10);
  });
}

TEST(Communicator, RefusesARankThatDoesNotExist) {
  in_every_world([](Communicator& world) {
    std::vector<std::byte> bytes(1), received(1);
    EXPECT_THROW(world.broadcast(bytes, world.size()), InternalError);
    EXPECT_THROW(world.exchange(bytes, -1, received, 0), InternalError);
  });
}

}  // namespace
}  // namespace tessera::test
