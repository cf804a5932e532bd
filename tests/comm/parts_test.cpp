// Sums of which each rank keeps a part, and parts that are put together again.

#include "comm/parts.h"

#include <gtest/gtest.h>

#include "contributions.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "world.h"

namespace tessera::test {
namespace {

/// Even parts; everything to the first or to the last rank; parts at random, some of them empty.
std::vector<Parts> cuts_of(int64_t count, int ranks) {
  Parts first, last, random;
  for (int r = 0; r < ranks; ++r) {
    first.ends.push_back(count);
    last.ends.push_back(r + 1 < ranks ? 0 : count);
    random.ends.push_back(static_cast<int64_t>(mix64(static_cast<uint64_t>(count + r)) % (count + 1)));
  }
  std::sort(random.ends.begin(), random.ends.end());
  random.ends.back() = count;
  return {even_parts(count, ranks), first, last, random};
}

// A piece holds 2^20 floats of all ranks together: the longest row takes several.
std::vector<int64_t> counts() {
  std::vector<int64_t> counts = {0, 1, 2, 3, 5, 1024, 20'003};
  if (launched_by_mpi()) counts.push_back((2 << 20) + 3);  // elsewhere nothing is cut
  return counts;
}

TEST(Parts, EvenOnesDifferByOneNumberAtMost) {
  EXPECT_EQ(even_parts(10, 4).ends, (std::vector<int64_t>{2, 5, 7, 10}));
  EXPECT_EQ(even_parts(2, 3).ends, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(even_parts(0, 2).ends, (std::vector<int64_t>{0, 0}));
}

TEST(Parts, OnesThatAreNotTheWholeRowAreRefused) {
  EXPECT_NO_THROW(check_parts({{0, 3, 3}}, 3, 3));
  EXPECT_THROW(check_parts({{1, 3}}, 3, 3), InternalError);
  EXPECT_THROW(check_parts({{2, 1, 3}}, 3, 3), InternalError);
  EXPECT_THROW(check_parts({{-1, 1, 3}}, 3, 3), InternalError);
  EXPECT_THROW(check_parts({{1, 2, 4}}, 3, 3), InternalError);
  EXPECT_THROW(world().reduce_scatter_sum({}, {}), InternalError);
}

TEST(Parts, AScatteredSumIsThePartOfTheWholeSumBitForBit) {
  in_every_world([](Communicator& world) {
    for (const int64_t count : counts()) {
      const auto mine = contribution<float>(world.rank(), count), sum = rank_ordered_sum<float>(world.size(), count);
      for (const Parts& parts : cuts_of(count, world.size())) {
        auto values = mine, expected = mine;
        for (int64_t i = parts.begin(world.rank()); i < parts.end(world.rank()); ++i) expected[i] = sum[i];
        world.reduce_scatter_sum(values, parts);
        EXPECT_EQ(differing_bits(values, expected), 0) << count << " floats";
      }
    }
  });
}

TEST(Parts, GatheringPutsEveryRanksPartInItsPlace) {
  in_every_world([](Communicator& world) {
    for (const int64_t count : counts()) {
      std::vector<std::vector<float>> rows;
      for (int r = 0; r < world.size(); ++r) rows.push_back(contribution<float>(r, count));
      for (const Parts& parts : cuts_of(count, world.size())) {
        std::vector<float> values = rows[static_cast<size_t>(world.rank())], expected(count);
        for (int r = 0; r < world.size(); ++r) {
          const auto& other = rows[static_cast<size_t>(r)];
          std::copy(other.begin() + parts.begin(r), other.begin() + parts.end(r), expected.begin() + parts.begin(r));
        }
        world.all_gather_parts(values, parts);
        EXPECT_EQ(differing_bits(values, expected), 0) << count << " floats";
      }
    }
  });
}

TEST(Parts, OfAViewGoThroughTheHostWhereverItsMemoryIs) {
  in_every_world([](Communicator& world) {
    constexpr int64_t kCount = 6000;
    for (const Device device : {Device{}, Device{Device::Kind::far}}) {
      const auto mine = contribution<float>(world.rank(), kCount);
      const Tensor values({2, kCount / 2}, DType::f32, device);
      for (const Parts& parts : cuts_of(kCount, world.size())) {
        copy(ConstView(mine).reshape({2, kCount / 2}), values);
        world.reduce_scatter_sum_view(values, parts);
        world.all_gather_parts_view(values, parts);
        const OnHost sums(values);
        const auto flat = sums.as<float>();
        const std::vector<float> found(flat.begin(), flat.end());
        EXPECT_EQ(differing_bits(found, rank_ordered_sum<float>(world.size(), kCount)), 0);
      }
    }
  });
}

TEST(Parts, ScatteringCountsTheRowAndGatheringTheOwnPart) {
  in_every_world([](Communicator& world) {
    const auto comm = world.split(0, world.rank());
    std::vector<float> values(1000);
    const Parts parts = even_parts(1000, comm->size());
    comm->reduce_scatter_sum(values, parts);
    comm->all_gather_parts(values, parts);
    EXPECT_EQ(comm->traffic().reduce_scatter.calls, 1);
    EXPECT_EQ(comm->traffic().reduce_scatter.bytes, 4000);
    EXPECT_EQ(comm->traffic().all_gather.calls, 1);
    EXPECT_EQ(comm->traffic().all_gather.bytes, 4 * parts.size(comm->rank()));
    EXPECT_EQ(comm->traffic().total_bytes(), 4000 + 4 * parts.size(comm->rank()));
  });
}

}  // namespace
}  // namespace tessera::test
