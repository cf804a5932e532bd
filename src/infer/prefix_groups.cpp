#include "infer/prefix_groups.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace tessera {
namespace {

using Node = PrefixTree::Node;

/// One level of sharing: groups are named by a node of the full tree, and share the tokens up to where it ends.
struct Groups {
  std::vector<int32_t> of;   // [terminals] the group's node; 0, the root: none
  std::vector<int32_t> end;  // [nodes] tokens that its group shares
};

// ---- the least computed tokens. Facility location on a tree: a prefix that is opened at v costs its e_v tokens, and
// each request pays what it has beyond the deepest open prefix on its path, whose length is a (0: none). Below and at v
//
//   f(v, a) = min( closed: sum over prompts that end at v of (e_v - a) + sum over children c of f(c, a),
//                  open:   e_v                                         + sum over children c of f(c, e_v) )
//
// a runs over the ends of v's ancestors, so that all tables together have at most two entries a token. `closed` falls
// as a grows and `open` does not, so the choice at v is one number: how many ancestors, from the root, are too short.

class ExactGroups {
 public:
  explicit ExactGroups(const PrefixTree& tree)
      : nodes_(tree.nodes), level_(nodes_.size()), below_(nodes_.size()), opened_(nodes_.size()) {
    for (size_t v = 1; v < nodes_.size(); ++v) level_[v] = level_[parent(v)] + 1;
    for (size_t v = nodes_.size(); v-- > 1;) solve(v);
  }

  Groups groups() const {
    std::vector<int32_t> prefix(nodes_.size());  // the deepest open node at or above
    Groups groups;
    for (size_t v = 0; v < nodes_.size(); ++v) {
      groups.end.push_back(nodes_[v].end);
      if (v == 0) continue;
      const int32_t above = prefix[parent(v)];
      prefix[v] = level_[static_cast<size_t>(above)] < opened_[v] ? static_cast<int32_t>(v) : above;
      groups.of.insert(groups.of.end(), static_cast<size_t>(nodes_[v].terminal_end - nodes_[v].terminal_begin),
                       prefix[v]);
    }
    return groups;
  }

 private:
  size_t parent(size_t v) const { return static_cast<size_t>(nodes_[v].parent); }

  /// Adds f(v, .) to the sums of v's parent; those of v are complete by then.
  void solve(size_t v) {
    std::vector<int64_t> below = std::exchange(below_[v], {});
    below.resize(static_cast<size_t>(level_[v]) + 1);
    std::vector<int64_t>& above = below_[parent(v)];
    above.resize(static_cast<size_t>(level_[v]));
    const int64_t ending = nodes_[v].terminal_end - nodes_[v].terminal_begin, open = nodes_[v].end + below.back();
    size_t ancestor = v;
    for (int32_t level = level_[v]; level-- > 0;) {
      ancestor = parent(ancestor);
      const int64_t closed = ending * (nodes_[v].end - nodes_[ancestor].end) + below[static_cast<size_t>(level)];
      if (open < closed) opened_[v] = std::max(opened_[v], level + 1);
      above[static_cast<size_t>(level)] += std::min(open, closed);
    }
  }

  const std::vector<Node>& nodes_;
  std::vector<int32_t> level_;               // number of ancestors
  std::vector<std::vector<int64_t>> below_;  // [level of an ancestor or of the node itself] sum over children of f
  std::vector<int32_t> opened_;              // open under an open prefix on a level below this number
};

// ---- BatchLLM's choice. From the leaves upward, a group g below c becomes a sibling of c with a copy of c's run,
// where its requests share more than that copy costs.

class GreedyGroups {
 public:
  explicit GreedyGroups(const PrefixTree& tree) : nodes_(tree.nodes), children_(nodes_.size()) {
    for (size_t v = 1; v < nodes_.size(); ++v)
      children_[static_cast<size_t>(nodes_[v].parent)].push_back(static_cast<int32_t>(v));
    for (size_t p = nodes_.size(); p-- > 0;)
      for (size_t i = 0, count = children_[p].size(); i < count; ++i) raise(static_cast<size_t>(children_[p][i]), p);
  }

  Groups groups(size_t requests) const {
    Groups groups{.of = std::vector<int32_t>(requests), .end = {}};
    for (const Node& node : nodes_) groups.end.push_back(node.end);
    for (int32_t group : children_[0]) {
      std::vector<int32_t> members = {group};
      while (!members.empty()) {
        const auto v = static_cast<size_t>(members.back());
        members.pop_back();
        members.insert(members.end(), children_[v].begin(), children_[v].end());
        std::fill(groups.of.begin() + nodes_[v].terminal_begin, groups.of.begin() + nodes_[v].terminal_end, group);
      }
    }
    return groups;
  }

 private:
  /// Makes those children of c for which it pays its siblings, below p.
  void raise(size_t c, size_t p) {
    Node& node = nodes_[c];
    const int64_t copied = node.end - node.begin;
    const bool ends_here = node.terminal_begin != node.terminal_end;
    size_t left = children_[c].size();
    for (int32_t g : children_[c]) {
      Node& child = nodes_[static_cast<size_t>(g)];
      if ((child.leaves - 1) * static_cast<int64_t>(child.end - child.begin) > copied) {
        child.begin = node.begin;
        node.leaves -= child.leaves;
        children_[p].push_back(g);
        --left;
      }
      if (left == 1 && !ends_here) break;
    }
    std::erase_if(children_[c], [&](int32_t g) { return nodes_[static_cast<size_t>(g)].begin == node.begin; });
    if (left == 1 && !ends_here) join_only_child(c);
  }

  void join_only_child(size_t c) {
    const auto child = static_cast<size_t>(children_[c].front());
    nodes_[c].end = nodes_[child].end;
    nodes_[c].terminal_begin = nodes_[child].terminal_begin;
    nodes_[c].terminal_end = nodes_[child].terminal_end;
    children_[c] = std::exchange(children_[child], {});
  }

  std::vector<Node> nodes_;
  std::vector<std::vector<int32_t>> children_;
};

// ---- trees of one level, and of none

class FlatTree {
 public:
  explicit FlatTree(Prompts prompts) : prompts_(prompts) { tree_.nodes.resize(1); }

  /// A run of the first one's prompt from `begin` on, at whose end the prompts of `requests` end.
  void add(int32_t begin, int32_t end, int32_t first, std::span<const int32_t> requests) {
    const auto terminals = static_cast<int32_t>(tree_.terminals.size());
    tree_.terminals.insert(tree_.terminals.end(), requests.begin(), requests.end());
    tree_.nodes.push_back({.begin = begin,
                           .end = end,
                           .request = first,
                           .terminal_begin = terminals,
                           .terminal_end = static_cast<int32_t>(tree_.terminals.size())});
  }

  /// A request's tokens from `begin` on.
  void add_rest(int32_t begin, int32_t request) { add(begin, length(request), request, {&request, 1}); }

  /// Members, sorted, that share their first `end` tokens.
  void add_group(int32_t end, std::span<const int32_t> members) {
    // Prompts that end with the prefix are all equal, and sorted they come first.
    const auto rest = std::find_if(members.begin(), members.end(), [&](int32_t m) { return length(m) > end; });
    const auto whole = static_cast<size_t>(rest - members.begin());
    add(0, end, members.front(), members.first(whole));
    for (int32_t member : members.subspan(whole)) add_rest(end, member);
  }

  PrefixTree finish(int64_t comparisons) {
    if (tree_.nodes.size() > 1) tree_.nodes[0].request = tree_.nodes[1].request;
    tree_.comparisons = comparisons;
    tree_.link();
    return std::move(tree_);
  }

 private:
  int32_t length(int32_t request) const { return static_cast<int32_t>(prompts_[static_cast<size_t>(request)].size()); }

  Prompts prompts_;
  PrefixTree tree_;
};

PrefixTree one_level(Prompts prompts, const PrefixTree& tree, const Groups& groups) {
  std::vector<std::vector<int32_t>> members;
  std::vector<int32_t> ends, place(tree.nodes.size(), -1);  // of a group's node among `members`
  for (size_t i = 0; i < tree.terminals.size(); ++i) {
    const int32_t request = tree.terminals[i];
    const auto group = static_cast<size_t>(groups.of[i]);
    if (group == 0 || place[group] < 0) {
      place[group] = static_cast<int32_t>(members.size());
      ends.push_back(group ? groups.end[group] : static_cast<int32_t>(prompts[static_cast<size_t>(request)].size()));
      members.emplace_back();
    }
    members[static_cast<size_t>(place[group])].push_back(request);
  }
  FlatTree flat(prompts);
  for (size_t i = 0; i < members.size(); ++i) flat.add_group(ends[i], members[i]);
  return flat.finish(tree.comparisons);
}

PrefixTree no_levels(Prompts prompts, std::span<const int32_t> requests, int64_t comparisons) {
  FlatTree flat(prompts);
  for (int32_t request : requests) flat.add_rest(0, request);
  return flat.finish(comparisons);
}

}  // namespace

PrefixTree shared_tree(Prompts prompts, std::span<const int32_t> requests, PrefixMode mode, int threads,
                       std::span<const TokenWeights> weights) {
  if (mode == PrefixMode::off) {
    check_prompts(prompts, requests);
    return no_levels(prompts, requests, 0);
  }
  if (mode == PrefixMode::sort) {
    const PrefixOrder sorted = sort_by_prefix(prompts, requests, threads, weights);
    return no_levels(prompts, sorted.order, sorted.comparisons);
  }
  PrefixTree tree = prefix_tree(prompts, requests, threads, weights);
  if (mode == PrefixMode::level1_exact) return one_level(prompts, tree, ExactGroups(tree).groups());
  if (mode == PrefixMode::level1_greedy)
    return one_level(prompts, tree, GreedyGroups(tree).groups(tree.terminals.size()));
  return tree;
}

std::vector<int32_t> groups_by_decoding(const PrefixTree& tree, std::span<const double> expected_new) {
  std::vector<int32_t> groups;
  std::vector<double> ratio(tree.nodes.size());
  for (int32_t g = 1; g < static_cast<int32_t>(tree.nodes.size()); g = tree.nodes[static_cast<size_t>(g)].subtree_end) {
    const Node& group = tree.nodes[static_cast<size_t>(g)];
    double decoding = 0;
    for (int32_t i = 0; i < group.leaves; ++i) {
      const int32_t terminal = group.terminal_begin + i;
      decoding += expected_new[static_cast<size_t>(tree.terminals[static_cast<size_t>(terminal)])];
    }
    int64_t prefilling = 0;
    for (int32_t v = g; v < group.subtree_end; ++v)
      prefilling += tree.nodes[static_cast<size_t>(v)].end - tree.nodes[static_cast<size_t>(v)].begin;
    ratio[static_cast<size_t>(g)] = decoding / static_cast<double>(prefilling);
    groups.push_back(g);
  }
  std::stable_sort(groups.begin(), groups.end(),
                   [&](int32_t a, int32_t b) { return ratio[static_cast<size_t>(a)] > ratio[static_cast<size_t>(b)]; });
  return groups;
}

}  // namespace tessera
