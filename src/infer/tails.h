#pragma once
// The pages of a sequence's tails: one, or those of the beams of a search, which share what they have in common.

#include <cstdint>
#include <span>
#include <vector>

#include "infer/page_pool.h"

namespace tessera {

/// Bundles of pages that so many neighbouring tokens take.
constexpr int64_t bundles_for(int64_t tokens, int64_t page_tokens) { return (tokens + page_tokens - 1) / page_tokens; }

/// What a bundle holds, to be had in another one: their first pages.
struct BundleCopy {
  int32_t from, to;
};

/// Tails of the same length, at least one, whose first tokens are in pages. When a tail continues another one it holds
/// the other's bundles; a bundle with room behind its last token gets a copy when the first of its holders writes to
/// it, so that a step takes at most one bundle a tail.
///
///   tail 0   |a a a a|b b b .|                      |a a a a|b b b d|      the last holder writes in place
///   tail 1   same     same          both are fed    same    |b b b e|      a copy
class Tails {
 public:
  int64_t count() const { return static_cast<int64_t>(tables_.size()); }
  /// First pages of the tail's bundles.
  std::span<const int32_t> table(int64_t tail) const { return tables_[static_cast<size_t>(tail)]; }
  /// That are held, each counted once.
  int64_t bundles() const;

  /// Tail i of now on continues tail parents[i] of before; tails that nobody continues are gone.
  void branch(PagePool&, std::span<const int32_t> parents);
  /// Bundles that are taken when each tail has tokens [fed, end) written to pages.
  int64_t bundles_to_feed(const PagePool&, int64_t fed, int64_t end, int64_t page_tokens) const;
  /// Takes them. @param copies  to be made before anything is written are added here
  void feed(PagePool&, int64_t fed, int64_t end, int64_t page_tokens, std::vector<BundleCopy>& copies);
  /// Gives all bundles back.
  void release(PagePool&);

 private:
  std::vector<std::vector<int32_t>> tables_ = std::vector<std::vector<int32_t>>(1);
};

}  // namespace tessera
