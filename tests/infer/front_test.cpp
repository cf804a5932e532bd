#include "infer/front.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

namespace tessera {
namespace {

struct Items {
  std::vector<double> keys, weights;
  std::vector<int32_t> ids;

  Items(size_t count, const std::function<double()>& key, const std::function<double()>& weight) {
    for (size_t i = 0; i < count; ++i) {
      keys.push_back(key());
      weights.push_back(weight());
      ids.push_back(static_cast<int32_t>(3 * i));
    }
  }
};

/// By a whole sort.
Ranked plain_end(const Items& items, double wanted) {
  std::vector<size_t> order;
  for (size_t i = 0; i < items.ids.size(); ++i)
    if (items.weights[i] > 0) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return items.keys[a] > items.keys[b]; });
  double sum = 0;
  size_t last = 0;
  for (size_t n = 0; n < order.size() && (n == 0 || sum < wanted); ++n) {
    last = order[n];
    sum += items.weights[last];
  }
  return {items.keys[last], items.ids[last]};
}

// Weights are whole numbers: their sums are exact in any order.
TEST(FrontSearch, EndsWhereAWholeSortEnds) {
  std::mt19937 random(5);
  FrontSearch search;
  const auto uniform = [&] { return std::uniform_real_distribution<double>(-30, 2)(random); };
  const std::vector<std::function<double()>> keys = {
      uniform,
      [&] { return std::round(uniform()); },
      [&] { return -std::exp(uniform() * 20); },                   // most are next to 0
      [&] { return random() % 50 ? uniform() * 1e-12 : -700.0; },  // one bucket has nearly all
      [&] { return std::ldexp(uniform(), -1060); },                // differences below the normal numbers
      [&] { return 4.0; }};
  for (size_t kind = 0; kind < keys.size(); ++kind)
    for (const size_t count : {1, 2, 31, 33, 500, 20000}) {
      const Items items(count, keys[kind], [&] { return static_cast<double>(random() % 5); });
      double total = 0;
      for (const double w : items.weights) total += w;
      if (total == 0) continue;
      for (const double share : {0.0, 0.001, 0.3, 0.5, 0.97, 0.9999, 1.0, 2.0}) {
        const double wanted = std::floor(share * total);
        const Ranked found = search.end(items.keys, items.weights, items.ids, wanted);
        const Ranked expected = plain_end(items, wanted);
        ASSERT_EQ(found.key, expected.key) << "keys " << kind << ", " << count << " items, share " << share;
        ASSERT_EQ(found.id, expected.id) << "keys " << kind << ", " << count << " items, share " << share;
      }
    }
}

TEST(FrontSearch, DoesNotLookAtKeysOfWhatWeighsNothing) {
  const std::vector<double> keys = {-std::numeric_limits<double>::infinity(), 1, 2}, weights = {0, 1, 1};
  const std::vector<int32_t> ids = {0, 1, 2};
  EXPECT_EQ(FrontSearch().end(keys, weights, ids, 5).id, 1);
}

}  // namespace
}  // namespace tessera
