#include "compress/partition.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>

namespace tessera {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

/// Costs of all runs, drawn at random: small integers, so that sums are exact and ties happen; some infinite.
struct RandomCosts {
  RandomCosts(std::mt19937_64& random, int64_t count, int infinite_in_ten) {
    for (int64_t begin = 0; begin < count; ++begin)
      for (int64_t end = begin + 2; end <= count; ++end)
        runs[{begin, end}] = {
            static_cast<int>(random() % 10) < infinite_in_ten ? kInfinite : static_cast<double>(random() % 12),
            begin + static_cast<int64_t>(random() % static_cast<uint64_t>(end - begin))};
  }
  RunCost operator()(int64_t begin, int64_t end) const { return runs.at({begin, end}); }
  std::map<std::pair<int64_t, int64_t>, RunCost> runs;
};

/// The least cost of all 2^(count - 1) cuts with that number of runs, none longer than `most`.
double least_of_all_cuts(int64_t count, int64_t most, int64_t wanted, const RandomCosts& costs) {
  double least = kInfinite;
  for (uint64_t cuts = 0; cuts < uint64_t{1} << (count - 1); ++cuts) {
    double cost = 0;
    int64_t runs = 0, begin = 0;
    for (int64_t end = 1; end <= count; ++end) {
      if (end < count && !(cuts >> (end - 1) & 1)) continue;
      cost += end - begin > most ? kInfinite : end == begin + 1 ? 0 : costs(begin, end).cost;
      ++runs;
      begin = end;
    }
    if (runs == wanted) least = std::min(least, cost);
  }
  return least;
}

TEST(Partitions, AreAsCheapAsTheBestOfAllCuts) {
  int feasible = 0, infeasible = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    std::mt19937_64 random(seed);
    const auto count = static_cast<int64_t>(1 + random() % 11), most = static_cast<int64_t>(1 + random() % 5);
    const RandomCosts costs(random, count, seed % 3 == 0 ? 4 : 0);
    const Partitions partitions(count, most, costs);
    for (int64_t wanted = 0; wanted <= count + 1; ++wanted) {
      const auto found = partitions.best(wanted);
      const double least = least_of_all_cuts(count, most, wanted, costs);
      ASSERT_EQ(found.has_value(), std::isfinite(least)) << seed << " " << wanted;
      ++(found ? feasible : infeasible);
      if (!found) continue;
      double cost = 0;
      int64_t begin = 0;
      for (const BlockRun& run : *found) {
        EXPECT_EQ(run.begin, begin) << seed;
        EXPECT_LE(run.end - run.begin, most) << seed;
        EXPECT_EQ(run.cost.parent, run.end == run.begin + 1 ? begin : costs(run.begin, run.end).parent) << seed;
        cost += run.cost.cost;
        begin = run.end;
      }
      EXPECT_EQ(begin, count) << seed;
      EXPECT_EQ(static_cast<int64_t>(found->size()), wanted) << seed;
      EXPECT_EQ(cost, least) << seed << " " << wanted;
    }
  }
  EXPECT_GT(feasible, 500);
  EXPECT_GT(infeasible, 500);
}

TEST(Partitions, TakeTheSmallestCutOfEqualOnes) {
  const Partitions partitions(5, 2, [](int64_t begin, int64_t) { return RunCost{1, begin}; });
  const auto runs = partitions.best(3);  // 1 2 2, 2 1 2 and 2 2 1 cost the same: the last run begins as early as it can
  ASSERT_TRUE(runs);
  EXPECT_EQ((*runs)[2].begin, 3);
  EXPECT_EQ((*runs)[1].begin, 1);
  EXPECT_EQ((*runs)[0].begin, 0);
}

TEST(Partitions, OfNothingAreNoRuns) {
  const Partitions partitions(0, 2, [](int64_t, int64_t) { return RunCost{}; });
  ASSERT_TRUE(partitions.best(0));
  EXPECT_TRUE(partitions.best(0)->empty());
  EXPECT_FALSE(partitions.best(1));
}

}  // namespace
}  // namespace tessera
