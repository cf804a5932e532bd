#pragma once
// Which pages of the cache are free. Numbers alone: what lies in them is the pools' (kernels/key_value_pages.h).

#include <cstdint>
#include <optional>
#include <vector>

namespace tessera {

/// Pages in bundles of neighbours, one page for each layer and key-value head: bundle b is pages
/// [b · pages_per_bundle, (b + 1) · pages_per_bundle). A bundle is handed out whole, or page by page: a broken bundle
/// is whole again when its last page is given back.
///
///   bundle 0        bundle 1        bundle 2         pages_per_bundle = 4
///   |x x x x|       |. . . .|       |x . x .|        whole, free, broken with two pages in use
///
/// A bundle that was handed out whole may have several holders; it is free when the last one gives it back.
class PagePool {
 public:
  PagePool(int64_t bundles, int64_t pages_per_bundle);

  /// The number of the bundle's first page; nothing when no bundle is free. The one that was given back last is taken
  /// first.
  std::optional<int32_t> take_bundle();
  void give_bundle(int32_t first_page);
  /// One more holds the bundle, and gives it back.
  void share_bundle(int32_t first_page);
  int32_t holders(int32_t first_page) const { return holders_[static_cast<size_t>(first_page / pages_per_bundle_)]; }

  /// Takes bundles until the table has so many. @return false when there were not enough; what was taken stays
  bool grow(std::vector<int32_t>& table, int64_t bundles);
  /// Gives all bundles of the table back.
  void release(std::vector<int32_t>& table);

  /// A single page: of a broken bundle if there is one, the lowest number first; else of a free bundle, which breaks.
  std::optional<int32_t> take_page();
  void give_page(int32_t page);

  int64_t bundles() const { return static_cast<int64_t>(in_use_.size()); }
  int64_t free_bundles() const { return static_cast<int64_t>(free_.size()); }
  int64_t pages_per_bundle() const { return pages_per_bundle_; }
  int64_t pages_in_use() const { return pages_in_use_; }
  int64_t peak_pages() const { return peak_pages_; }

 private:
  void note(int64_t pages);
  void require_whole(int32_t first_page) const;

  int64_t pages_per_bundle_;
  std::vector<int32_t> free_;     // numbers of bundles; the last is taken first
  std::vector<int32_t> in_use_;   // pages of each bundle that are handed out
  std::vector<int32_t> holders_;  // of each bundle that is handed out whole
  std::vector<bool> handed_out_;  // of each page
  std::vector<int32_t> broken_;   // numbers of bundles with some pages free, ascending
  int64_t pages_in_use_ = 0, peak_pages_ = 0;
};

}  // namespace tessera
