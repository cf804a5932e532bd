#include "compress/partition.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace tessera {

Partitions::Partitions(int64_t count, int64_t most, const std::function<RunCost(int64_t begin, int64_t end)>& run_cost)
    : count_(count), most_(most) {
  TS_CHECK(count >= 0 && most >= 1, "{} blocks in runs of {}", count, most);
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  runs_.resize(static_cast<size_t>(count * most));
  for (int64_t begin = 0; begin < count; ++begin)
    for (int64_t end = begin + 1; end <= std::min(count, begin + most); ++end)
      runs_[begin * most + (end - begin - 1)] = end == begin + 1 ? RunCost{0, begin} : run_cost(begin, end);
  steps_.assign(static_cast<size_t>((count + 1) * (count + 1)), {kInfinite, -1});
  step(0, 0).cost = 0;
  for (int64_t end = 1; end <= count; ++end)
    for (int64_t runs = 1; runs <= end; ++runs)
      for (int64_t cut = std::max<int64_t>(0, end - most); cut < end; ++cut) {
        const double cost = step(cut, runs - 1).cost + run(cut, end).cost;
        if (cost < step(end, runs).cost) step(end, runs) = {cost, cut};
      }
}

std::optional<std::vector<BlockRun>> Partitions::best(int64_t runs) const {
  if (runs < 0 || runs > count_ || (count_ > 0 && step(count_, runs).cut < 0)) return std::nullopt;
  if (count_ == 0) return std::vector<BlockRun>{};
  std::vector<BlockRun> found;
  for (int64_t end = count_; runs > 0; --runs) {
    const int64_t begin = step(end, runs).cut;
    found.push_back({begin, end, run(begin, end)});
    end = begin;
  }
  std::reverse(found.begin(), found.end());
  return found;
}

}  // namespace tessera
