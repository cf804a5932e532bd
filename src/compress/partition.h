#pragma once
// Cutting a row of blocks into runs at the least cost, by dynamic programming.

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace tessera {

/// What one run of consecutive blocks costs when they share, and which of them the others read. Positions in the row.
struct RunCost {
  double cost = 0;  // infinite: they cannot share
  int64_t parent = 0;
};

struct BlockRun {
  int64_t begin = 0, end = 0;  // positions [begin, end)
  RunCost cost;
};

/// All cuts of `count` blocks into m runs of at most `most` blocks, for every m:
///   best(j, m) = min over i in j-most .. j-1 of best(i, m-1) + cost(i .. j-1),   ties to the smallest i.
/// Takes about count · most · (count + cost of a run); holds count² numbers.
class Partitions {
 public:
  /// @param run_cost  of the blocks [begin, end); called once for each run of two blocks or more. A block alone costs 0
  Partitions(int64_t count, int64_t most, const std::function<RunCost(int64_t begin, int64_t end)>& run_cost);

  /// The cheapest cut into `runs` runs; none where every such cut holds a run of infinite cost.
  std::optional<std::vector<BlockRun>> best(int64_t runs) const;

 private:
  struct Step {
    double cost;
    int64_t cut;  // where the last run begins
  };
  const RunCost& run(int64_t begin, int64_t end) const { return runs_[begin * most_ + (end - begin - 1)]; }
  Step& step(int64_t end, int64_t runs) { return steps_[end * (count_ + 1) + runs]; }
  const Step& step(int64_t end, int64_t runs) const { return steps_[end * (count_ + 1) + runs]; }

  int64_t count_, most_;
  std::vector<RunCost> runs_;  // [count, most], by begin and length - 1
  std::vector<Step> steps_;    // [count + 1, count + 1], by end and number of runs
};

}  // namespace tessera
