#pragma once
// Prompts in dictionary order, with what each shares with the one in front of it.

#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

/// The tokens of every request's prompt that are computed, at the request's number; none is empty where it is used.
using Prompts = std::span<const std::span<const int32_t>>;

/// Which weights a prompt's tokens are computed with: the base's alone up to token `from`, and from there on an
/// adapter's beside them.
struct TokenWeights {
  int32_t adapter = 0;  // its number; 0: none
  int32_t from = 0;
  /// The number of the adapter that acts on the token at this position.
  int32_t at(int32_t position) const { return position < from ? 0 : adapter; }
  /// The first position at which the other's tokens are computed with other weights; INT32_MAX: there is none.
  int32_t parts_from(const TokenWeights& other) const;
};

/// Requests in order of their prompts: by token ids, a prompt before its continuations, the lower number first among
/// equal prompts. Tokens that are computed with different weights are different: by the adapter's number, then by id.
struct PrefixOrder {
  std::vector<int32_t> order;   // request numbers
  std::vector<int32_t> common;  // how many tokens order[i] and order[i - 1] begin with alike; 0 for the first
  int64_t comparisons = 0;      // of two token ids, or of one with the end of a prompt, or of two ends
};

/// Sorts requests by a merge that carries common prefixes, so that tokens known to be equal are not compared again.
///   comparisons <= sum of common + R log2 R = (S_logical - S_trie) + R log2 R
/// for R requests with S_logical tokens, S_trie of them different as prefixes. Ng and Kakehi 2008, "Merging string
/// sequences by longest common prefixes". Order, common prefixes and comparisons do not depend on `threads`.
/// @param requests  distinct request numbers, in any order
/// @param weights   of each prompt, at the request's number; empty: all are computed with the same
/// @throws InternalError as check_prompts does
PrefixOrder sort_by_prefix(Prompts, std::span<const int32_t> requests, int threads,
                           std::span<const TokenWeights> weights = {});

/// @throws InternalError for a request without a prompt and for one whose prompt is empty
void check_prompts(Prompts, std::span<const int32_t> requests);

}  // namespace tessera
