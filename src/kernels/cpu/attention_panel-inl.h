// What attention.cpp knows about a panel of queries: which keys it sees, its products with a block of keys, and how it
// is turned into lanes and back.
//
// A vector of queries sees the keys up to that of its last query, and with a window those from its first query's window
// on. So a block of keys falls into pieces of rows that the same vectors see. Behind three vectors of a panel,
// d = key − the key of the panel's first query, without a window:
//
//                 queries →   0 .. 15   16 .. 31   32 .. 47
//   keys  d < 16                  x         x          x        one piece
//   ↓     16 <= d < 32                      x          x        another
//         32 <= d < 48                                 x        the last
//
// Included once per SIMD target, behind tile-inl.h.
#if defined(TESSERA_KERNELS_CPU_ATTENTION_PANEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_ATTENTION_PANEL_INL_H_
#undef TESSERA_KERNELS_CPU_ATTENTION_PANEL_INL_H_
#else
#define TESSERA_KERNELS_CPU_ATTENTION_PANEL_INL_H_
#endif

#include <algorithm>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/attention.h"
#include "kernels/cpu/attention_parts.h"
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

constexpr int64_t kPanel = kTileCols * kLanes;
static_assert(kPanel <= kMaxPanel);

/// A panel of queries of one head: which it is and which keys it sees.
struct Panel {
  int64_t queries;  // of the panel
  int64_t width;    // queries rounded up to whole vectors
  int64_t own;      // query i stands at key own + i, and sees none behind it
  int64_t keys;     // keys up to the last query
  int64_t window;   // keys that a query sees, its own the last of them
  int64_t begin;    // the first key of the blocks that are visited
  int vectors() const { return static_cast<int>(width / kLanes); }
};

/// @param window  as in AttentionArgs: 0 for all keys
HWY_INLINE Panel panel_at(const AttentionSegment& s, int64_t begin, int64_t window) {
  const int64_t queries = s.q_end - s.q_begin, keys = s.k_end - s.k_begin;
  Panel p;
  p.queries = std::min(kPanel, queries - begin);
  p.width = (p.queries + kLanes - 1) / kLanes * kLanes;
  // The mask is aligned at the end: the last query of the segment sees all keys.
  p.own = keys - queries + begin;
  p.keys = p.own + p.queries;
  p.window = window > 0 ? std::min(window, keys) : keys;
  p.begin = std::max<int64_t>(0, p.own + 1 - p.window) / kKeyBlock * kKeyBlock;
  return p;
}

/// Rows times vectors of a block that must be left out for pieces to be worth their calls: 20 keys of a document of 20
/// tokens are one piece with vectors of 16 lanes, 30 are two.
constexpr int64_t kWorthCutting = 12;

/// Rows [begin, end) of a block of keys.
struct Rows {
  int64_t begin, end;
};

/// A block of keys of a panel: keys [key, key + rows) of the segment.
struct Block {
  const Panel& panel;
  int64_t key, rows;
  Rows visited[kTileCols];  // by each vector: the rows that some query of it sees, or all of them

  HWY_INLINE Block(const Panel& p, int64_t first_key)
      : panel(p), key(first_key), rows(std::min(kKeyBlock, p.keys - first_key)) {
    int64_t left_out = 0;
    for (int v = 0; v < p.vectors(); ++v) {
      const int64_t first = row_of(v);
      visited[v] = {std::clamp<int64_t>(first - p.window + 1, 0, rows), std::clamp<int64_t>(first + kLanes, 0, rows)};
      left_out += rows - (visited[v].end - visited[v].begin);
    }
    // Of a few rows it is quicker to take them all.
    if (left_out < kWorthCutting)
      for (Rows& all : visited) all = {0, rows};
  }
  /// The rows that all queries of vector v see; end < begin is possible.
  Rows seen_by_all(int v) const {
    return {std::max<int64_t>(row_of(v) - panel.window + kLanes, 0), std::min(row_of(v) + 1, rows)};
  }
  bool is_first() const { return key == panel.begin; }
  bool begins_span() const { return is_first() || key % kKeySpan == 0; }

 private:
  /// The row of the key at which the first query of vector v stands.
  int64_t row_of(int v) const { return panel.own + v * kLanes - key; }
};

/// The lanes of vector `v` whose query sees row `row` of the block.
HWY_INLINE auto lanes_that_see(const Block& b, int64_t row, int v) {
  // A lane is a query. Its number is compared with the key's distance as floats, which are exact below 2^24.
  const Vector lane = hn::Iota(kFloats, static_cast<float>(v * kLanes));
  const int64_t first = b.key + row - b.panel.own;
  return hn::And(hn::Ge(lane, hn::Set(kFloats, static_cast<float>(first))),
                 hn::Lt(lane, hn::Set(kFloats, static_cast<float>(first + b.panel.window))));
}

/// Rows of a block that vectors [first, last) of the panel visit, and no others.
struct Piece {
  int64_t begin, end;
  int first, last;
  int64_t rows() const { return end - begin; }
  int64_t column() const { return first * kLanes; }
  int64_t width() const { return (last - first) * kLanes; }
};

/// The pieces of a block, in the order of its rows.
struct Pieces {
  Piece of[2 * kTileCols];
  int count = 0;

  explicit HWY_INLINE Pieces(const Block& b) {
    const int vectors = b.panel.vectors();
    // Both ends of what a vector sees grow with its number, so that the vectors of a row are neighbours.
    int first = 0, last = 0;
    for (int64_t row = 0; row < b.rows;) {
      while (first < vectors && b.visited[first].end <= row) ++first;
      while (last < vectors && b.visited[last].begin <= row) ++last;
      int64_t end = b.rows;
      if (first < vectors) end = std::min(end, b.visited[first].end);
      if (last < vectors) end = std::min(end, b.visited[last].begin);
      if (first < last) of[count++] = {row, end, first, last};
      row = end;
    }
  }
  const Piece* begin() const { return of; }
  const Piece* end() const { return of + count; }
};

/// c [rows of the block, panel] = x · t for x [rows, dim]: the scores of a block of keys.
HWY_INLINE void times_panel(const Pieces& pieces, const float* x, int64_t stride, int64_t dim, const float* t,
                            int64_t width, float* c) {
  for (const Piece& p : pieces)
    product({p.rows(), p.width(), dim, x + p.begin * stride, stride, 1, t + p.column(), width,
             c + p.begin * width + p.column(), width, 1, 0});
}

/// c [dim, panel] = xᵀ · t for x [rows of the block, dim]: sums over the keys of a block, ascending.
HWY_INLINE void transposed_times_panel(const Pieces& pieces, const float* x, int64_t stride, int64_t dim,
                                       const float* t, int64_t width, float* c) {
  const bool whole = pieces.count == 1 && pieces.of[0].width() == width;
  if (!whole) std::fill_n(c, dim * width, 0.0f);
  for (const Piece& p : pieces)
    product({dim, p.width(), p.rows(), x + p.begin * stride, 1, stride, t + p.begin * width + p.column(), width,
             c + p.column(), width, 1, whole ? 0.0f : 1.0f, true});
}

/// c [rows of the block, dim] += t · x for x [queries, dim]: chains over the queries of the panel, which go on from
/// those of the panels before.
HWY_INLINE void panel_times(const Block& b, const Pieces& pieces, const float* t, const float* x, int64_t stride,
                            int64_t dim, float* c, int64_t c_stride) {
  const int64_t width = b.panel.width;
  for (const Piece& p : pieces)
    product({p.rows(), dim, std::min(p.width(), b.panel.queries - p.column()), t + p.begin * width + p.column(), width,
             1, x + p.column() * stride, stride, c + p.begin * c_stride, c_stride, 1, 1, true});
}

/// to [cols, rows] = scale · fromᵀ; the rows of `to` are filled with zeros up to `padded`.
static HWY_NOINLINE void transpose(const float* from, int64_t from_stride, int64_t rows, int64_t cols, float scale,
                                   float* to, int64_t to_stride, int64_t padded) {
  for (int64_t r = 0; r < padded; r += kLanes)
    for (int64_t c = 0; c < cols; c += kLanes) {
      const float* block = from + r * from_stride + c;
      float* turned = to + c * to_stride + r;
      // Whole blocks, which are most, ask nothing on the way.
      if (rows - r >= kLanes && cols - c >= kLanes)
        transpose_block(block, from_stride, kLanes, kLanes, scale, turned, to_stride, kLanes);
      else
        transpose_block(block, from_stride, rows - r, cols - c, scale, turned, to_stride,
                        std::min<int64_t>(kLanes, padded - r));
    }
}

/// Asks for rows that are soon read or written: they lie a token apart, and the CPU does not see them coming.
HWY_INLINE void prefetch_rows(const float* from, int64_t stride, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; c += kFloatsPerLine) hwy::Prefetch(from + r * stride + c);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
