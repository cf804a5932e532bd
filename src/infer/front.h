#pragma once
// Where the front part of an order ends that has a share of the whole, without forming the order.

#include <cstdint>
#include <span>
#include <vector>

namespace tessera {

/// An item of an order: the larger key comes first, of equal keys the lower id.
struct Ranked {
  double key;
  int32_t id;
};
struct ComesFirst {
  bool operator()(const Ranked& a, const Ranked& b) const { return a.key != b.key ? a.key > b.key : a.id < b.id; }
};

/// Finds ends of fronts. Time is that of a few passes over the items, whatever their keys. Scratch is kept.
class FrontSearch {
 public:
  /// The last item of the shortest front, of at least one, whose weights sum to `wanted`; of all items that weigh
  /// anything if they do not sum to it. Sums are formed bucket by bucket, so that their last bits are not those of the
  /// order's.
  /// @param keys     finite where a weight is above 0
  /// @param weights  of the items, not negative, one of them above 0
  /// @param ids      ascending
  Ranked end(std::span<const double> keys, std::span<const double> weights, std::span<const int32_t> ids,
             double wanted);

 private:
  std::vector<uint32_t> members_;  // items among which the end is
  std::vector<double> sums_;       // of buckets
};

}  // namespace tessera
