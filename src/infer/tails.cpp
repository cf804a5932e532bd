#include "infer/tails.h"

#include <algorithm>
#include <set>

#include "core/error.h"

namespace tessera {

int64_t Tails::bundles() const {
  if (count() == 1) return std::ssize(tables_[0]);
  std::set<int32_t> held;
  for (const std::vector<int32_t>& table : tables_) held.insert(table.begin(), table.end());
  return std::ssize(held);
}

void Tails::branch(PagePool& pool, std::span<const int32_t> parents) {
  TS_CHECK(!parents.empty(), "a sequence is left without a tail");
  std::vector<std::vector<int32_t>> next;
  for (const int32_t parent : parents) {
    TS_CHECK(0 <= parent && parent < count(), "tail {} of {} is continued", parent, count());
    next.push_back(tables_[static_cast<size_t>(parent)]);
    for (const int32_t bundle : next.back()) pool.share_bundle(bundle);
  }
  release(pool);
  tables_ = std::move(next);
}

int64_t Tails::bundles_to_feed(const PagePool& pool, int64_t fed, int64_t end, int64_t page_tokens) const {
  int64_t bundles = 0;
  std::set<int32_t> shared;  // that have room
  for (const std::vector<int32_t>& table : tables_) {
    bundles += std::max<int64_t>(0, bundles_for(end, page_tokens) - std::ssize(table));
    if (fed % page_tokens == 0) continue;
    // Each holder but one takes a copy.
    const int32_t last = table.back();
    if (pool.holders(last) > 1 && !shared.insert(last).second) ++bundles;
  }
  return bundles;
}

void Tails::feed(PagePool& pool, int64_t fed, int64_t end, int64_t page_tokens, std::vector<BundleCopy>& copies) {
  for (std::vector<int32_t>& table : tables_) {
    if (fed % page_tokens != 0 && pool.holders(table.back()) > 1) {
      const auto own = pool.take_bundle();
      TS_CHECK(own, "no bundle of pages is left for a copy");
      copies.push_back({table.back(), *own});
      pool.give_bundle(table.back());
      table.back() = *own;
    }
    TS_CHECK(pool.grow(table, bundles_for(end, page_tokens)), "no bundle of pages is left for a tail");
  }
}

void Tails::release(PagePool& pool) {
  for (auto table = tables_.rbegin(); table != tables_.rend(); ++table) pool.release(*table);
}

}  // namespace tessera
