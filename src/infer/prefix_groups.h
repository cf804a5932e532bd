#pragma once
// How a batch's prompts are grouped by their prefixes, and in which order the groups start.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/prefix_tree.h"

namespace tessera {

/// What is shared between prompts.
enum class PrefixMode : uint8_t {
  tree,           // every common prefix, on all levels: S_trie tokens are computed
  level1_exact,   // one prefix a prompt, those with the fewest computed tokens
  level1_greedy,  // one prefix a prompt, as BatchLLM (Zheng et al. 2024, arXiv:2412.03594) chooses them
  sort,           // nothing; neighbours are alike, which a cache of prefixes profits from
  off             // nothing, requests as given
};

/// What the engine computes. `tree`: see prefix_tree(). One level: the root's children are the groups' prefixes, and
/// what is left of each member is a node below; a member of which nothing is left ends at its group's node, and a
/// request without a group is a node of its own. Groups are in order of their first members, sorted. `sort` and `off`:
/// one node a request, below the root, also for equal prompts.
/// Computed tokens: S_trie = tree <= level1_exact <= level1_greedy <= S_logical = sort = off. level1_exact is the least
/// over all partitions of the requests, each part sharing what all of its prompts begin with.
/// @param requests  of one key (salt): prompts of different keys share nothing
/// @param weights   as of sort_by_prefix: what is computed with different weights is not shared
/// @throws InternalError as check_prompts does
PrefixTree shared_tree(Prompts, std::span<const int32_t> requests, PrefixMode, int threads,
                       std::span<const TokenWeights> weights = {});

/// The root's children, those with the most decoding for their prefilling first: descending in
///   sum of expected_new over the group's requests / tokens of the group's runs,
/// the lower node first among equals. Groups that decode for long start early, so that their steps have company.
/// @param expected_new  tokens that each request is expected to generate, at its number
std::vector<int32_t> groups_by_decoding(const PrefixTree&, std::span<const double> expected_new);

}  // namespace tessera
