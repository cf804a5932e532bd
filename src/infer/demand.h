#pragma once
// What a request asks of the schedule, and the pages that it takes.

#include <cstdint>

#include "infer/prefix_tree.h"

namespace tessera {

/// What a request asks for: `samples` continuations of at most so many new tokens; none: its prompt alone is computed.
/// A continuation that is searched by beams is one sequence with up to `width` tails.
struct Demand {
  int64_t new_tokens = 0;
  int32_t samples = 0, width = 1;
  int32_t adapter = 0;                                                         // its number; 0: none
  int64_t tail_tokens() const { return new_tokens > 0 ? new_tokens - 1 : 0; }  // the last new token is never fed
  int64_t tails() const { return int64_t{samples} * width; }
};

/// Bundles of pages that a request takes when it is alone, as long as it may become; its prompt ends at the node.
int64_t bundles_alone(const PrefixTree&, int32_t node, const Demand&, int64_t page_tokens);

}  // namespace tessera
