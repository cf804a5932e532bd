#include "infer/page_pool.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {

PagePool::PagePool(int64_t bundles, int64_t pages_per_bundle)
    : pages_per_bundle_(pages_per_bundle),
      in_use_(static_cast<size_t>(bundles), 0),
      holders_(static_cast<size_t>(bundles), 0),
      handed_out_(static_cast<size_t>(bundles * pages_per_bundle), false) {
  TS_CHECK(bundles >= 0 && pages_per_bundle > 0 && bundles <= INT32_MAX / pages_per_bundle,
           "a cache of {} bundles of {} pages", bundles, pages_per_bundle);
  // The lowest number is taken first.
  for (int64_t b = bundles - 1; b >= 0; --b) free_.push_back(static_cast<int32_t>(b));
}

void PagePool::note(int64_t pages) {
  pages_in_use_ += pages;
  peak_pages_ = std::max(peak_pages_, pages_in_use_);
}

std::optional<int32_t> PagePool::take_bundle() {
  if (free_.empty()) return std::nullopt;
  const int32_t bundle = free_.back();
  free_.pop_back();
  const auto first = static_cast<int32_t>(bundle * pages_per_bundle_);
  in_use_[static_cast<size_t>(bundle)] = static_cast<int32_t>(pages_per_bundle_);
  holders_[static_cast<size_t>(bundle)] = 1;
  std::fill_n(handed_out_.begin() + first, pages_per_bundle_, true);
  note(pages_per_bundle_);
  return first;
}

void PagePool::require_whole(int32_t first_page) const {
  const int64_t bundle = first_page / pages_per_bundle_;
  TS_CHECK(first_page % pages_per_bundle_ == 0 && 0 <= bundle && bundle < bundles() &&
               holders_[static_cast<size_t>(bundle)] > 0,
           "page {} begins no bundle that is handed out", first_page);
}

void PagePool::share_bundle(int32_t first_page) {
  require_whole(first_page);
  ++holders_[static_cast<size_t>(first_page / pages_per_bundle_)];
}

void PagePool::give_bundle(int32_t first_page) {
  require_whole(first_page);
  const int64_t bundle = first_page / pages_per_bundle_;
  if (--holders_[static_cast<size_t>(bundle)] > 0) return;
  in_use_[static_cast<size_t>(bundle)] = 0;
  std::fill_n(handed_out_.begin() + first_page, pages_per_bundle_, false);
  free_.push_back(static_cast<int32_t>(bundle));
  note(-pages_per_bundle_);
}

bool PagePool::grow(std::vector<int32_t>& table, int64_t bundles) {
  while (std::ssize(table) < bundles) {
    const auto bundle = take_bundle();
    if (!bundle) return false;
    table.push_back(*bundle);
  }
  return true;
}

void PagePool::release(std::vector<int32_t>& table) {
  // The last one first: it is taken again last.
  for (auto bundle = table.rbegin(); bundle != table.rend(); ++bundle) give_bundle(*bundle);
  table.clear();
}

std::optional<int32_t> PagePool::take_page() {
  if (broken_.empty()) {
    if (free_.empty()) return std::nullopt;
    broken_.push_back(free_.back());
    free_.pop_back();
  }
  const int32_t bundle = broken_.front();
  auto page = static_cast<int32_t>(bundle * pages_per_bundle_);
  while (handed_out_[static_cast<size_t>(page)]) ++page;
  handed_out_[static_cast<size_t>(page)] = true;
  // With all its pages in use it has none to give, and is no bundle to be taken either.
  if (++in_use_[static_cast<size_t>(bundle)] == pages_per_bundle_) broken_.erase(broken_.begin());
  note(1);
  return page;
}

void PagePool::give_page(int32_t page) {
  TS_CHECK(0 <= page && page < bundles() * pages_per_bundle_ && handed_out_[static_cast<size_t>(page)],
           "page {} is not handed out", page);
  const auto bundle = static_cast<int32_t>(page / pages_per_bundle_);
  handed_out_[static_cast<size_t>(page)] = false;
  const auto place = std::lower_bound(broken_.begin(), broken_.end(), bundle);
  if (--in_use_[static_cast<size_t>(bundle)] == 0) {
    if (place != broken_.end() && *place == bundle) broken_.erase(place);
    free_.push_back(bundle);
  } else if (place == broken_.end() || *place != bundle) {
    broken_.insert(place, bundle);
  }
  note(-1);
}

}  // namespace tessera
