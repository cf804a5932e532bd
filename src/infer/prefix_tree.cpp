// The sorted prompts are read from the last one to the first, with the nodes of the last one's path on a stack. A node
// is put out when the prompt in front of it has left it; read backwards, that is depth-first preorder.

#include "infer/prefix_tree.h"

#include <algorithm>

namespace tessera {
namespace {

/// Nodes of which the first request is not known yet, from the root downward.
struct OpenNode {
  int32_t end;
  int32_t terminals;
};

class Builder {
 public:
  explicit Builder(const PrefixOrder& sorted) : sorted_(sorted) {}

  std::vector<PrefixTree::Node> build(Prompts prompts) {
    const int32_t count = static_cast<int32_t>(sorted_.order.size());
    for (int32_t i = count; i-- > 0;) {
      close(i + 1 < count ? sorted_.common[static_cast<size_t>(i) + 1] : 0, i + 1);
      const auto length =
          static_cast<int32_t>(prompts[static_cast<size_t>(sorted_.order[static_cast<size_t>(i)])].size());
      if (open_.back().end < length) open_.push_back({length, 0});
      ++open_.back().terminals;
    }
    close(0, 0);
    nodes_.push_back({.request = count ? sorted_.order[0] : -1});
    std::reverse(nodes_.begin(), nodes_.end());
    return std::move(nodes_);
  }

 private:
  /// Puts out what lies below depth `end`, up to where a node ends there. The first request below is the first-th.
  void close(int32_t end, int32_t first) {
    while (open_.back().end > end) {
      const OpenNode node = open_.back();
      open_.pop_back();
      if (open_.back().end < end) open_.push_back({end, 0});  // prompts part in the middle of a run
      nodes_.push_back({.begin = open_.back().end,
                        .end = node.end,
                        .request = sorted_.order[static_cast<size_t>(first)],
                        .terminal_begin = first,
                        .terminal_end = first + node.terminals});
    }
  }

  const PrefixOrder& sorted_;
  std::vector<OpenNode> open_ = {{0, 0}};
  std::vector<PrefixTree::Node> nodes_;
};

}  // namespace

int64_t PrefixTree::tokens() const {
  int64_t sum = 0;
  for (const Node& node : nodes) sum += node.end - node.begin;
  return sum;
}

std::vector<int32_t> PrefixTree::path_to(int32_t v) const {
  std::vector<int32_t> path;
  for (; v > 0; v = nodes[static_cast<size_t>(v)].parent) path.push_back(v);
  std::reverse(path.begin(), path.end());
  return path;
}

void PrefixTree::link() {
  const auto at = [this](int32_t v) -> Node& { return nodes[static_cast<size_t>(v)]; };
  const int32_t count = static_cast<int32_t>(nodes.size());
  for (int32_t v = 0; v < count; ++v) {
    at(v).subtree_end = v + 1;
    at(v).leaves = at(v).terminal_end - at(v).terminal_begin;
    at(v).parent = v - 1;
    // An earlier sibling ends behind where v begins, the parent just there.
    while (v > 0 && at(at(v).parent).end > at(v).begin) at(v).parent = at(at(v).parent).parent;
  }
  for (int32_t v = count - 1; v > 0; --v) {
    at(at(v).parent).subtree_end = std::max(at(at(v).parent).subtree_end, at(v).subtree_end);
    at(at(v).parent).leaves += at(v).leaves;
  }
}

PrefixTree prefix_tree(Prompts prompts, std::span<const int32_t> requests, int threads,
                       std::span<const TokenWeights> weights) {
  PrefixOrder sorted = sort_by_prefix(prompts, requests, threads, weights);
  PrefixTree tree{.nodes = Builder(sorted).build(prompts), .terminals = {}, .comparisons = sorted.comparisons};
  tree.terminals = std::move(sorted.order);
  tree.link();
  return tree;
}

}  // namespace tessera
