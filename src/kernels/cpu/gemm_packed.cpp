// C = alpha · op(A) · op(B) + beta · C by register tiles (tile-inl.h) over packed strips of B.
//
//              strip   strip     A task owns some rows and some columns of C. For a block of k it copies its part of
//             +------+------+    B, widened and turned if need be, in strips as wide as a tile, each in one piece.
//   k block   |      |      |    Then it goes down the rows: a few tiles' rows of A, read where they lie or, if A is
//             +------+------+    stored turned, copied too, meet each strip in turn. Which of them waits in which
//      rows   | tile | tile |    cache is said below. What lies a strip further in B, the rows of A that come next,
//      of A   | tile | tile |    and the tile of C, are fetched meanwhile.
//
// An element is summed over k in order, in blocks of kBlockK or in a chain, wherever it stands. Its bits do not depend
// on the other rows and columns, so that tasks may be cut to suit the number of threads.

#include <omp.h>

#include <algorithm>

#include "kernels/cpu/gemm_parts.h"
#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gemm_packed.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu::HWY_NAMESPACE {

/// A strip of op(B): `width` columns from column n of the product on, in whole vectors; `cols` of them exist. Packed,
/// it is [k, width], and so read from its beginning to its end by each tile.
struct Strip {
  int64_t n, cols, width;
};

/// The strips of a task, one after another.
class Strips {
 public:
  explicit HWY_INLINE Strips(const PackedTask& t) : end_(t.n_end) { at(t.n_begin); }
  HWY_INLINE bool more() const { return strip_.n < end_; }
  HWY_INLINE void next() { at(strip_.n + strip_.width); }
  HWY_INLINE const Strip* operator->() const { return &strip_; }
  HWY_INLINE const Strip& operator*() const { return strip_; }

 private:
  HWY_INLINE void at(int64_t n) {
    const int64_t left = end_ - n, width = strip_vectors((left + kLanes - 1) / kLanes) * kLanes;
    strip_ = {n, std::min(left, width), width};
  }
  int64_t end_;
  Strip strip_;
};

/// A strip from [cols, k] in storage; the columns up to width are zeros.
template <class T> HWY_INLINE void pack_turned(const T* from, int64_t stride, const Strip& s, int64_t k, float* to) {
  // Square blocks of one vector's size are turned in registers: both reads and writes are of whole vectors.
  for (int64_t c = 0; c < s.width; c += kLanes)
    for (int64_t i = 0; i < k; i += kLanes) {
      const T* block = from + c * stride + i;
      for (int64_t r = 0; r < kLanes; ++r) hwy::Prefetch(block + (r + s.width) * stride);  // the next strip's
      transpose_block(block, stride, s.cols - c, k - i, 1, to + i * s.width + c, s.width, kLanes);
    }
}

/// The same from [k, cols] in storage.
template <class T> HWY_INLINE void pack_straight(const T* from, int64_t stride, const Strip& s, int64_t k, float* to) {
  for (int64_t i = 0; i < k; ++i, from += stride, to += s.width)
    for (int64_t c = 0; c < s.width; c += kLanes) {
      hwy::Prefetch(from + c + kStrip);  // the next strips'
      hn::Store(load_some(from + c, s.cols - c), kFloats, to + c);
    }
}

/// Rows [k_begin, k_begin + k) of the task's columns of op(B), strip behind strip.
template <class T>
HWY_INLINE void pack_strips(const GemmArgs& g, const PackedTask& t, int64_t k_begin, int64_t k, float* panel) {
  const int64_t stride = g.b.row_stride();
  for (Strips s(t); s.more(); panel += k * s->width, s.next()) {
    if (g.b_transpose == Transpose::yes)
      pack_turned(g.b.row<T>(s->n) + k_begin, stride, *s, k, panel);
    else
      pack_straight(g.b.row<T>(k_begin) + s->n, stride, *s, k, panel);
  }
}

// What lies in which cache while a block of k is multiplied.
//   16 lanes: the packed strips of 192 columns in the second-level cache, a tile's rows of A in the first.
//   8 lanes or fewer, the smaller caches: 64 rows of A in the second, which meet a strip before the next one comes from
//   the third; so columns are not counted, and A is read, or copied, once for all of a task. Half and double as many
//   rows are the same.
constexpr bool kWide = kLanes >= 16;
constexpr int64_t kColumns = (kWide ? 4 : kMaxStrips) * kStrip;
constexpr int64_t kRowsInPlace = kWide ? kTileRows : 64, kRowsCopied = kWide ? 16 : 64;
static_assert(kRowsCopied % kTileRows == 0 && kRowsInPlace % kTileRows == 0 && kRowsInPlace <= kRowsCopied);

// A chain may be cut anywhere. Longer pieces read and write C less often: 1 % for 512 tokens.
constexpr int64_t kChainK = kWide ? kBlockK : 512;
constexpr int64_t kFloatsInLine = 16;

/// Some rows of op(A) for a block of k.
struct RowsOfA {
  const float* data;
  int64_t row_step, k_step, tile_step;
};

// Between the copied rows of two tiles lies a line, without which those of all tiles would share two sets of the
// first-level cache.
constexpr int64_t kCopyFloats = (kChainK * kTileRows + kFloatsInLine) * (kRowsCopied / kTileRows);

/// `rows` rows of a turned A from row m on, copied since a row's elements are far apart: a tile reads what it takes for
/// each k in one piece, [k, kTileRows], and all of them behind one another.
HWY_INLINE RowsOfA copied_turned(const GemmArgs& g, int64_t m, int64_t rows, int64_t k_begin, int64_t k, float* copy) {
  const int64_t stride = g.a.row_stride();
  const float* from = g.a.row<float>(k_begin) + m;
  const int64_t whole = rows / kTileRows * kTileRows, tile_step = k * kTileRows + kFloatsInLine;
  for (int64_t i = 0; i < k; ++i, from += stride) {
    float* to = copy + i * kTileRows;
    for (int64_t r = 0; r < rows; r += kFloatsInLine) hwy::Prefetch(from + 8 * stride + r);  // no order that it sees
    for (int64_t r = 0; r < whole; r += kTileRows, to += tile_step)
      std::memcpy(to, from + r, kTileRows * sizeof(float));  // a constant length: moves without a call
    for (int64_t r = whole; r < rows; ++r) to[r - whole] = from[r];
  }
  return {copy, 1, kTileRows, tile_step};
}

// Of more rows at a time the fetches themselves are waited for.
constexpr int64_t kMostFetched = 8;

/// The same of an A that is stored as it is: a row behind the other.
HWY_INLINE RowsOfA copied_rows(const GemmArgs& g, int64_t m, int64_t rows, int64_t k_begin, int64_t k, float* copy) {
  for (int64_t r = 0; r < rows; ++r)
    std::memcpy(copy + r * k, g.a.row<float>(m + r) + k_begin, static_cast<size_t>(k) * sizeof(float));
  return {copy, k, 1, kTileRows * k};
}

/// Whether rows of A share sets of the caches: those a multiple of this apart lie in a quarter of them or less.
HWY_INLINE bool rows_collide(const GemmArgs& g) { return g.a.row_stride() % 1024 == 0; }

/// Asks for rows [m, end) of A, which are read later.
HWY_INLINE void fetch_rows(const GemmArgs& g, int64_t m, int64_t end, int64_t k_begin, int64_t k) {
  for (; m < end; ++m)
    for (int64_t i = 0; i < k; i += kFloatsInLine) hwy::Prefetch(g.a.row<float>(m) + k_begin + i);
}

/// The task's rows against one block of k.
HWY_INLINE void multiply_strips(const GemmArgs& g, const PackedTask& t, int64_t k_begin, int64_t k,
                                const float* panels) {
  // What C held is scaled once, by the first block of k; later blocks add to their predecessors.
  const float alpha = static_cast<float>(g.alpha), beta = k_begin == 0 ? static_cast<float>(g.beta) : 1.0f;
  const bool chain = g.sum == Sum::chain, turned = g.a_transpose == Transpose::yes;
  const int64_t stride = g.c.row_stride(), rows_at_once = turned ? kRowsCopied : kRowsInPlace;
  // The rows that come next are fetched a few with each strip, if there are enough strips for that.
  const int64_t fetched = parts_of(rows_at_once, parts_of(t.n_end - t.n_begin, kTileCols * kLanes));
  const bool fetches = !turned && !kWide && fetched <= kMostFetched, copies = fetches && rows_collide(g);
  HWY_ALIGN float copy[kCopyFloats];
  for (int64_t m = t.m_begin; m < t.m_end; m += rows_at_once) {
    const int64_t rows = std::min(rows_at_once, t.m_end - m), next_end = std::min(t.m_end, m + 2 * rows_at_once);
    const RowsOfA a = turned ? copied_turned(g, m, rows, k_begin, k, copy)
                      : copies
                          ? copied_rows(g, m, rows, k_begin, k, copy)
                          : RowsOfA{g.a.row<float>(m) + k_begin, g.a.row_stride(), 1, kTileRows * g.a.row_stride()};
    const float* panel = panels;
    int64_t next = m + rows;
    for (Strips s(t); s.more(); panel += k * s->width, s.next(), next += fetched) {
      if (fetches) fetch_rows(g, next, std::min(next_end, next + fetched), k_begin, k);
      product({.m = rows,
               .n = s->cols,
               .k = k,
               .a = a.data,
               .row_step = a.row_step,
               .k_step = a.k_step,
               .b = panel,
               .ldb = s->width,
               .c = g.c.row<float>(m) + s->n,
               .ldc = stride,
               .alpha = alpha,
               .beta = beta,
               .chain = chain,
               .ahead = !chain             ? 0
                        : rows > kTileRows ? kTileRows * stride
                                           : s->width,
               .tile_step = a.tile_step});
    }
  }
}

template <class T> void run_typed(const GemmArgs& g, const PackedTask& task, float* panels) {
  const int64_t k_all = inner_size(g);
  const int64_t block = g.sum == Sum::chain ? parts_of(k_all, parts_of(k_all, kChainK)) : kBlockK;
  const int64_t columns = std::min(kColumns, kPanelFloats / (block * kStrip) * kStrip);
  for (int64_t n = task.n_begin; n < task.n_end; n += columns) {
    const PackedTask t{task.m_begin, task.m_end, n, std::min(task.n_end, n + columns)};
    // One block of k after the other, in order: that is the order of an element's sum, the same in every task.
    for (int64_t k_begin = 0; k_begin < k_all; k_begin += block) {
      const int64_t k = std::min(block, k_all - k_begin);
      pack_strips<T>(g, t, k_begin, k, panels);
      multiply_strips(g, t, k_begin, k, panels);
    }
  }
}

void packed_task(const GemmArgs& g, const PackedTask& t, float* panels) {
  if (g.b.dtype == DType::bf16)
    run_typed<BFloat16>(g, t, panels);
  else if (g.b.dtype == DType::f16)
    run_typed<Float16>(g, t, panels);
  else
    run_typed<float>(g, t, panels);
}

}  // namespace tessera::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::cpu {
namespace {

HWY_EXPORT(packed_task);

// Packing a strip for fewer rows than this would cost more than a tenth of the product.
constexpr int64_t kFewestRows = 64;

}  // namespace

PackedGrid::PackedGrid(int64_t m, int64_t n, int64_t k, int64_t threads, Transpose a_transpose) : m(m), n(n) {
  if (m * n * k < kSmallWork) threads = 1;
  const int64_t strips = parts_of(n, kStrip);
  // As many column parts as threads, or a multiple, so that all threads end together; none has more than kMaxStrips.
  col_parts = std::min(strips, threads * parts_of(strips, threads * kMaxStrips));
  // Of two strips the second may be a small rest: not a whole one for each thread counts as too few.
  if (n < threads * kStrip && m >= threads * kFewestRows) col_parts = parts_of(strips, kMaxStrips);
  // Too few columns for all threads: rows are cut as well. Every row part packs the same strips again, so that it has
  // to have rows enough to pay for that.
  row_parts = col_parts >= threads ? 1 : std::clamp<int64_t>(m / kFewestRows, 1, parts_of(threads, col_parts));
  // A turned A is copied by each column part, as B is by each row part: they are cut so that a thread copies least.
  if (a_transpose == Transpose::no) return;
  const auto copied = [&](int64_t rows_cut, int64_t cols_cut) { return m / rows_cut + n / cols_cut; };
  for (int64_t cut = 1; cut <= std::min(threads, m / kFewestRows); ++cut)
    if (threads % cut == 0 && threads / cut <= strips && copied(cut, threads / cut) < copied(row_parts, col_parts))
      row_parts = cut, col_parts = threads / cut;
}

PackedTask PackedGrid::task(int64_t i) const {
  // Where part `part` begins: parts are whole units (strips, or tiles of 8 rows), and only the last may be cut.
  const auto cut = [](int64_t size, int64_t unit, int64_t parts, int64_t part) {
    return std::min(size, parts_of(size, unit) * part / parts * unit);
  };
  const int64_t row = i / col_parts, col = i % col_parts;
  return {cut(m, 8, row_parts, row), cut(m, 8, row_parts, row + 1), cut(n, kStrip, col_parts, col),
          cut(n, kStrip, col_parts, col + 1)};
}

void packed_part(const GemmArgs& g, const PackedTask& t, float* panels) {
  HWY_DYNAMIC_DISPATCH(packed_task)(g, t, panels);
}

void packed_gemm(const Context& ctx, const GemmArgs& g) {
  const auto scope = ctx.scratch.scope();
  float* panels = ctx.scratch.allocate({ctx.threads, kPanelFloats}, DType::f32).row<float>(0);
  const PackedGrid grid(g.c.rows(), g.c.cols(), inner_size(g), ctx.threads, g.a_transpose);
  const auto run = HWY_DYNAMIC_DISPATCH(packed_task);
#pragma omp parallel for schedule(dynamic, 1) num_threads(ctx.threads) if (grid.tasks() > 1)
  for (int64_t i = 0; i < grid.tasks(); ++i) run(g, grid.task(i), panels + omp_get_thread_num() * kPanelFloats);
}

int64_t packed_scratch_bytes(int threads) { return threads * kPanelFloats * size_of(DType::f32); }

}  // namespace tessera::cpu
#endif
