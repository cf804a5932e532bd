#include "infer/prefix_statistics.h"

#include <algorithm>
#include <vector>

namespace tessera {
namespace {

double ratio(int64_t a, int64_t b) { return b ? static_cast<double>(a) / static_cast<double>(b) : 0; }

}  // namespace

double PrefixStatistics::saving() const { return 100 * ratio(logical - physical, logical); }
double PrefixStatistics::sharing_degree() const { return ratio(requests, groups); }
double PrefixStatistics::prefix_mean() const { return ratio(shared, requests); }
double PrefixStatistics::distinct_mean() const { return ratio(logical - shared, requests); }

PrefixStatistics& PrefixStatistics::operator+=(const PrefixStatistics& other) {
  requests += other.requests;
  groups += other.groups;
  levels = std::max(levels, other.levels);
  logical += other.logical;
  physical += other.physical;
  shared += other.shared;
  comparisons += other.comparisons;
  return *this;
}

PrefixStatistics prefix_statistics(const PrefixTree& tree) {
  PrefixStatistics sum;
  sum.requests = static_cast<int64_t>(tree.terminals.size());
  sum.physical = tree.tokens();
  sum.comparisons = tree.comparisons;
  std::vector<int64_t> level(tree.nodes.size());
  for (size_t v = 1; v < tree.nodes.size(); ++v) {
    const PrefixTree::Node& node = tree.nodes[v];
    level[v] = level[static_cast<size_t>(node.parent)] + 1;
    sum.levels = std::max(sum.levels, level[v]);
    sum.logical += int64_t{node.end} * (node.terminal_end - node.terminal_begin);
    if (node.parent != 0) continue;
    ++sum.groups;
    if (node.leaves > 1) sum.shared += int64_t{node.end} * node.leaves;
  }
  return sum;
}

void cached_tokens(const PrefixTree& tree, std::span<int64_t> cached) {
  const auto& nodes = tree.nodes;
  std::vector<int32_t> lowest(nodes.size(), INT32_MAX);  // request at or below each node
  for (size_t v = nodes.size(); v-- > 1;) {
    for (int32_t t = nodes[v].terminal_begin; t < nodes[v].terminal_end; ++t) {
      const int32_t request = tree.terminals[static_cast<size_t>(t)];
      lowest[v] = std::min(lowest[v], request);
      cached[static_cast<size_t>(request)] = nodes[v].end;  // for equal prompts behind the first one
    }
    int32_t& above = lowest[static_cast<size_t>(nodes[v].parent)];
    above = std::min(above, lowest[v]);
  }
  // The lowest request below a node is the one that comes by first and computes its run: from the topmost such node on
  // nothing is shared with lower ones.
  for (size_t v = 1; v < nodes.size(); ++v)
    if (nodes[v].parent == 0 || lowest[v] != lowest[static_cast<size_t>(nodes[v].parent)])
      cached[static_cast<size_t>(lowest[v])] = nodes[v].begin;
}

}  // namespace tessera
