// Items are dealt into buckets that divide the range of their keys evenly. Sums of whole buckets tell in which of them
// the front ends; its items are dealt anew, until they are few enough to be sorted.

#include "infer/front.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

constexpr int kBuckets = 2048;
constexpr size_t kSorted = 32;       // so few are sorted at once
constexpr double kSteepest = 1e300;  // from here on a scale can be infinite

/// Even parts of the range of some keys, the largest first.
struct Buckets {
  double high, low, scale;

  Buckets(std::span<const double> keys, std::span<const uint32_t> members) : high(keys[members.front()]), low(high) {
    for (const uint32_t i : members) {
      high = std::max(high, keys[i]);
      low = std::min(low, keys[i]);
    }
    scale = kBuckets / (high - low);
  }
  int of(double key) const { return std::min(static_cast<int>((high - key) * scale), kBuckets - 1); }
};

}  // namespace

Ranked FrontSearch::end(std::span<const double> keys, std::span<const double> weights, std::span<const int32_t> ids,
                        double wanted) {
  members_.clear();
  for (size_t i = 0; i < weights.size(); ++i)
    if (weights[i] > 0) members_.push_back(static_cast<uint32_t>(i));
  TS_CHECK(!members_.empty(), "no item of {} weighs anything", weights.size());
  double sum = 0;
  while (true) {
    const Buckets buckets(keys, members_);
    if (members_.size() <= kSorted || !(buckets.scale < kSteepest)) break;
    sums_.assign(kBuckets, 0);
    for (const uint32_t i : members_) sums_[static_cast<size_t>(buckets.of(keys[i]))] += weights[i];
    // The first has the largest key and the last the smallest: each round leaves fewer members.
    int last = 0;
    while (last + 1 < kBuckets && sum + sums_[static_cast<size_t>(last)] < wanted)
      sum += sums_[static_cast<size_t>(last++)];
    std::erase_if(members_, [&](uint32_t i) { return buckets.of(keys[i]) != last; });
  }
  // They are in ascending id, and there may be many with one key.
  std::stable_sort(members_.begin(), members_.end(), [&](uint32_t a, uint32_t b) { return keys[a] > keys[b]; });
  size_t last = 0;
  for (sum += weights[members_[0]]; sum < wanted && last + 1 < members_.size();) sum += weights[members_[++last]];
  return {keys[members_[last]], ids[members_[last]]};
}

}  // namespace tessera
