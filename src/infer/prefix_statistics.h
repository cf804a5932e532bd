#pragma once
// What a plan saves, in figures for readers.

#include <cstdint>
#include <span>

#include "infer/prefix_tree.h"

namespace tessera {

/// Of one tree, or of several (one a key) added up. A group is a child of the root with all below it; its prefix is the
/// child's run, unless it has one member only: that one shares nothing.
struct PrefixStatistics {
  int64_t requests = 0, groups = 0;
  int64_t levels = 0;                 // the most nodes on a request's path, without the root
  int64_t logical = 0, physical = 0;  // tokens of all prompts; of all runs, which are computed
  int64_t shared = 0;                 // sum over requests of their group's prefix
  int64_t comparisons = 0;            // see PrefixOrder

  double saving() const;          // percent of the logical tokens that are not computed
  double sharing_degree() const;  // requests a group
  double prefix_mean() const;     // tokens that a request has in its group's prefix, on average
  double distinct_mean() const;   // tokens that it has behind it; the two add up to the mean prompt
  PrefixStatistics& operator+=(const PrefixStatistics&);
};
PrefixStatistics prefix_statistics(const PrefixTree&);

/// For each request of the tree, at its number in `cached`: the longest prefix that its prompt shares with a request of
/// a lower number in the tree. A function of the batch alone, which also tells what to compute:
/// sum of (prompt's tokens - cached) = S_trie.
/// @param tree  of mode `tree`
void cached_tokens(const PrefixTree& tree, std::span<int64_t> cached);

}  // namespace tessera
