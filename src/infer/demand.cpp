#include "infer/demand.h"

#include "infer/tails.h"

namespace tessera {

int64_t bundles_alone(const PrefixTree& tree, int32_t node, const Demand& demand, int64_t page_tokens) {
  int64_t bundles = demand.samples > 0 ? demand.width * bundles_for(demand.tail_tokens(), page_tokens) : 0;
  for (int32_t v = node; v > 0; v = tree.nodes[static_cast<size_t>(v)].parent) {
    const PrefixTree::Node& n = tree.nodes[static_cast<size_t>(v)];
    bundles += bundles_for(n.end - n.begin, page_tokens);
  }
  return bundles;
}

}  // namespace tessera
