#include "infer/rank_shares.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

using Node = PrefixTree::Node;

/// A node whose subtrees are handed out one by one. Its run is computed on each rank that has one of them.
struct SplitNode {
  int32_t above;  // among split nodes; -1: none
  double tokens;
};

/// What goes to one rank as a whole.
struct Part {
  std::span<const int32_t> requests;
  int32_t above;           // among split nodes; -1: none
  double own, with_above;  // cost where what is above is computed already, and where it is not
};

class Parts {
 public:
  Parts(std::span<const PrefixTree> trees, std::span<const double> expected_new, double new_token_cost, int ranks)
      : expected_new_(expected_new), new_token_cost_(new_token_cost) {
    std::vector<std::vector<double>> costs;
    for (const PrefixTree& tree : trees) costs.push_back(costs_below(tree));
    double total = 0;
    for (const std::vector<double>& cost : costs) total += cost[0];
    largest_ = 1.5 * total / ranks;
    for (size_t t = 0; t < trees.size(); ++t) hand_out(trees[t], costs[t]);
  }

  std::vector<Part> parts{};
  std::vector<SplitNode> split{};

 private:
  static size_t index(int32_t v) { return static_cast<size_t>(v); }

  std::span<const int32_t> terminals(const PrefixTree& tree, int32_t begin, int32_t count) const {
    return std::span(tree.terminals).subspan(index(begin), index(count));
  }

  double decoding(std::span<const int32_t> requests) const {
    double sum = 0;
    for (int32_t request : requests) sum += expected_new_[index(request)];
    return new_token_cost_ * sum;
  }

  /// Of each node with all below it, without what is above.
  std::vector<double> costs_below(const PrefixTree& tree) const {
    std::vector<double> cost(tree.nodes.size());
    for (size_t v = tree.nodes.size(); v-- > 0;) {
      const Node& node = tree.nodes[v];
      cost[v] += node.end - node.begin + decoding(ending_at(tree, node));
      if (v > 0) cost[index(node.parent)] += cost[v];
    }
    return cost;
  }

  std::span<const int32_t> ending_at(const PrefixTree& tree, const Node& node) const {
    return terminals(tree, node.terminal_begin, node.terminal_end - node.terminal_begin);
  }

  bool can_be_split(const PrefixTree& tree, const Node& node) const {
    const auto ending = ending_at(tree, node);
    return node.leaves > static_cast<int32_t>(ending.size()) || (ending.size() > 1 && decoding(ending) > largest_);
  }

  void hand_out(const PrefixTree& tree, const std::vector<double>& cost) {
    std::vector<int32_t> place(tree.nodes.size(), -1);  // of a node among the split ones
    const int32_t count = static_cast<int32_t>(tree.nodes.size());
    for (int32_t v = 1; v < count;) {
      const Node& node = tree.nodes[index(v)];
      const int32_t above = place[index(node.parent)];
      if (cost[index(v)] > largest_ && can_be_split(tree, node)) {
        place[index(v)] = static_cast<int32_t>(split.size());
        split.push_back({above, static_cast<double>(node.end - node.begin)});
        hand_out_ends(ending_at(tree, node), place[index(v)], node.end);
        ++v;
      } else {
        parts.push_back(
            {terminals(tree, node.terminal_begin, node.leaves), above, cost[index(v)], cost[index(v)] + node.begin});
        v = node.subtree_end;
      }
    }
  }

  /// The requests that end at a split node.
  void hand_out_ends(std::span<const int32_t> requests, int32_t above, int32_t tokens_above) {
    const double cost = decoding(requests);
    const size_t step = cost > largest_ ? 1 : std::max<size_t>(requests.size(), 1);
    for (size_t i = 0; i < requests.size(); i += step) {
      const auto part = requests.subspan(i, step);
      parts.push_back({part, above, decoding(part), decoding(part) + tokens_above});
    }
  }

  std::span<const double> expected_new_;
  double new_token_cost_;
  double largest_ = 0;  // cost of a part above which it is split
};

}  // namespace

RankShares rank_shares(std::span<const PrefixTree> trees, std::span<const double> expected_new, double new_token_cost,
                       int ranks) {
  TS_CHECK(ranks > 0, "{} ranks", ranks);
  Parts all(trees, expected_new, new_token_cost, ranks);
  std::stable_sort(all.parts.begin(), all.parts.end(),
                   [](const Part& a, const Part& b) { return a.with_above > b.with_above; });
  const auto count = static_cast<size_t>(ranks);
  RankShares shares{.requests = std::vector<std::vector<int32_t>>(count), .cost = std::vector<double>(count)};
  std::vector<std::vector<bool>> has(count, std::vector<bool>(all.split.size()));  // split nodes computed on a rank
  for (const Part& part : all.parts) {
    const auto cost_with = [&](size_t rank) {
      double cost = shares.cost[rank] + part.own;
      for (int32_t s = part.above; s >= 0 && !has[rank][static_cast<size_t>(s)];
           s = all.split[static_cast<size_t>(s)].above)
        cost += all.split[static_cast<size_t>(s)].tokens;
      return cost;
    };
    size_t best = 0;
    double least = cost_with(0);
    for (size_t rank = 1; rank < count; ++rank)
      if (const double cost = cost_with(rank); cost < least) best = rank, least = cost;
    shares.cost[best] = least;
    for (int32_t s = part.above; s >= 0; s = all.split[static_cast<size_t>(s)].above)
      has[best][static_cast<size_t>(s)] = true;
    shares.requests[best].insert(shares.requests[best].end(), part.requests.begin(), part.requests.end());
  }
  for (std::vector<int32_t>& requests : shares.requests) std::sort(requests.begin(), requests.end());
  return shares;
}

std::vector<size_t> share_of_rank(const RequestFile& file, std::span<const size_t> left, const BatchPlan& plan,
                                  int rank, int ranks) {
  if (ranks == 1) return {left.begin(), left.end()};
  // A new token goes through the head, and passes that continue few texts are not full.
  constexpr double kNewToken = 2;
  const RankShares shares = rank_shares({&plan.tree, 1}, plan.expected_new, kNewToken, ranks);
  std::vector<bool> is_own(left.size());
  for (const int32_t r : shares.requests[static_cast<size_t>(rank)]) is_own[static_cast<size_t>(r)] = true;
  std::vector<size_t> own;
  size_t i = 0;
  for (const AskedLine& line : file.lines) {
    if (i == left.size() || left[i] != line.first) continue;
    if (is_own[i])
      for (size_t j = 0; j < line.count; ++j) own.push_back(left[i + j]);
    i += line.count;
  }
  TS_CHECK(i == left.size(), "{} of {} requests stand in whole lines", i, left.size());
  return own;
}

}  // namespace tessera
