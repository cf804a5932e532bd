#pragma once
// The tree of what a batch's prompts begin with alike.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/prefix_order.h"

namespace tessera {

/// Prompts laid out as runs of tokens that are computed once each: a request's prompt is the runs from the root down to
/// the node where it ends.
///
///   0 1 2       root ── [0, 2) "0 1" ──┬── [2, 3) "2"     nodes in depth-first preorder: root, "0 1", "2", "3 4"
///   0 1 3 4                            └── [2, 4) "3 4"
///
/// The children of node v: v + 1 is the first, if it is before v's subtree_end; subtree_end of one is the next one.
struct PrefixTree {
  struct Node {
    int32_t parent = -1;  // -1: the root
    int32_t begin = 0,
            end = 0;       // the node's run is tokens [begin, end) of the prompt of `request`; only the root's is empty
    int32_t request = -1;  // one below or at the node; -1 for the root of an empty tree
    int32_t subtree_end = 0;                       // nodes [v, subtree_end) are v and those below it
    int32_t terminal_begin = 0, terminal_end = 0;  // into `terminals`: requests whose prompts end at `end`
    int32_t leaves = 0;  // requests at or below: terminals [terminal_begin, terminal_begin + leaves)
  };
  std::vector<Node> nodes;         // at least the root
  std::vector<int32_t> terminals;  // every request once, in order of the nodes; within a node the lower number first
  int64_t comparisons = 0;         // that it took (see PrefixOrder)

  /// Sum of the lengths of all runs: what is computed of the prompts. For a tree of mode `tree` it is S_trie, the
  /// number of different non-empty prefixes of the prompts, below which no exact reuse of prefixes gets.
  int64_t tokens() const;
  /// The nodes from the root, which is left out, down to v.
  std::vector<int32_t> path_to(int32_t v) const;
  /// Sets parent, subtree_end and leaves of nodes in preorder from their runs and terminals.
  void link();
};

/// The tree in which every common prefix is one run: a node for each place where prompts part or end. Memory and,
/// behind the sort, time are of the order of the number of requests.
/// @param weights  as of sort_by_prefix: what is computed with different weights is not common
PrefixTree prefix_tree(Prompts, std::span<const int32_t> requests, int threads,
                       std::span<const TokenWeights> weights = {});

}  // namespace tessera
