// Folded matrices by runs: weights that follow each other in the matrix, in the numbering and in the cells,
// with one factor.
//
//   numbering   ...|<---------- chunk c ---------->|<--------- chunk c+1 ...
//   cells          u(c) ........ m-1, 0 .. u(c)-1 | u(c+1) ...                two runs a chunk, were there no matrix's,
//   runs           +----------------+ +----------+                            tile's or factor's end
//
// A run is a stream in, a stream out and a sign a weight: the top bit of a 64-bit hash, of which two vectors are made
// for one of f32. That is what it costs, about 13 cycles for 16 weights with AVX-512;
// the weights of the first chunk have no sign.
//
// expand shares out rows. contract shares out cells: a thread takes a block of them that stays in the first-level
// cache, and adds to it chunk by chunk what reads it, so that every cell is added to in ascending order by one thread.

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/fold.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/fold_parts.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

using Words = hn::RebindToUnsigned<Floats>;
using Wide = hn::Repartition<uint64_t, Floats>;
using WideVec = hn::Vec<Wide>;
constexpr Words kWords;
constexpr Wide kWide;

/// s(i) · f for a vector of consecutive weights after the other. Weights of even and of odd number are hashed apart:
/// their bits then meet in the halves of 64-bit lanes without a permutation.
class SignedFactor {
 public:
  HWY_INLINE SignedFactor(const FoldHash& hash, int64_t first, float factor)
      : even_(hn::Add(hn::Set(kWide, hash.sign_key + (static_cast<uint64_t>(first) + 1) * kGamma64),
                      hn::Mul(hn::Iota(kWide, 0), hn::Set(kWide, 2 * kGamma64)))),
        factor_(hn::BitCast(kWords, hn::Set(kFloats, factor))) {}

  HWY_INLINE FloatVec next() {
    const WideVec even = top_bits(even_), odd = top_bits(hn::Add(even_, hn::Set(kWide, kGamma64)));
    // The next vector's hashes begin a vector of weights later in the sequence: numbers advance by additions alone.
    even_ = hn::Add(even_, hn::Set(kWide, hn::Lanes(kFloats) * kGamma64));
    // The sign is the hash's top bit. Of an odd weight it stands at the top of the upper half already, of an even one
    // it is moved to the top of the lower half: woven together they are one vector of 32-bit words in the weights'
    // order.
    const auto bits = hn::OddEven(hn::BitCast(kWords, odd), hn::BitCast(kWords, hn::ShiftRight<32>(even)));
    return hn::BitCast(kFloats, hn::Xor(factor_, hn::And(bits, hn::Set(kWords, 0x80000000u))));
  }

 private:
  /// finalise64 without its last step, which leaves the top bit alone.
  static HWY_INLINE WideVec top_bits(WideVec z) {
    z = hn::Mul(hn::Xor(z, hn::ShiftRight<30>(z)), hn::Set(kWide, uint64_t{0xBF58476D1CE4E5B9u}));
    return hn::Mul(hn::Xor(z, hn::ShiftRight<27>(z)), hn::Set(kWide, uint64_t{0x94D049BB133111EBu}));
  }
  WideVec even_;
  hn::Vec<Words> factor_;
};

/// The factor alone: the weights of the first chunk.
class PlainFactor {
 public:
  HWY_INLINE explicit PlainFactor(float factor) : factor_(hn::Set(kFloats, factor)) {}
  HWY_INLINE FloatVec next() { return factor_; }

 private:
  FloatVec factor_;
};

// Signs leave memory to rest, and a hardware prefetcher starts anew at each page: both streams are asked for this far
// ahead. Matrices of 0.9 M weights on pools of 53 M and 11 M cells, ns a weight to expand: 0.42 and 0.33; 0.63 and 0.55
// without; 128 ahead 0.49 and 0.43, 2048 ahead 0.43 and 0.36. To contract: 0.43 and 0.41; 0.64 and 0.62 without.
constexpr int64_t kAhead = 512;
HWY_INLINE void prefetch_ahead(const float* p) { __builtin_prefetch(p + kAhead); }

template <class Factor>
HWY_INLINE void expand_run(const float* HWY_RESTRICT pool, int64_t n, Factor factor, float* HWY_RESTRICT w) {
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    prefetch_ahead(pool + i);
    prefetch_ahead(w + i);
    vector.store(hn::Mul(factor.next(), vector.load(pool + i)), w + i);
  });
}

template <class Factor>
HWY_INLINE void contract_run(const float* HWY_RESTRICT dw, int64_t n, Factor factor, float* HWY_RESTRICT dpool) {
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    prefetch_ahead(dw + i);
    prefetch_ahead(dpool + i);
    vector.store(hn::Add(vector.load(dpool + i), hn::Mul(factor.next(), vector.load(dw + i))), dpool + i);
  });
}

/// Goes through weights run by run, with the chunk and the factor at hand,
/// so that most steps divide and search nothing.
class Walk {
 public:
  explicit Walk(const FoldedMatrix& matrix) : matrix_(matrix) { enter(0); }

  void enter(int64_t chunk) {
    chunk_begin_ = chunk * matrix_.hash.cells;
    rotation_ = matrix_.hash.rotation(chunk);
  }
  int64_t chunk_begin() const { return chunk_begin_; }
  int64_t rotation() const { return rotation_; }

  /// run(i, cell, n, factor) for the runs of the weights [i, end), numbered among all folded ones.
  template <class Run> HWY_INLINE void over(int64_t i, int64_t end, Run&& run) {
    const int64_t cells = matrix_.hash.cells;
    while (i < end) {
      if (i < chunk_begin_ || i - chunk_begin_ >= cells) enter(i / cells);
      // Inside of a chunk, cells are the weights' offsets turned by the rotation. `left` counts the weights up to where
      // the cells wrap to 0; behind the wrap, up to the end of the chunk.
      int64_t cell = rotation_ + (i - chunk_begin_), left = cells - cell;
      if (left <= 0) cell -= cells, left += rotation_;
      if (cell < piece_begin_ || cell >= piece_.end) find_piece(cell);
      // A run ends where the first of these ends: the weights wanted, the straight stretch of cells, the factor's
      // piece.
      const int64_t n = std::min({end - i, left, piece_.end - cell});
      run(i, cell, n, static_cast<float>(piece_.factor));
      i += n;
    }
  }

 private:
  void find_piece(int64_t cell) {
    const auto piece = std::partition_point(matrix_.factors.begin(), matrix_.factors.end(),
                                            [cell](const FoldFactor& piece) { return piece.end <= cell; });
    piece_begin_ = piece == matrix_.factors.begin() ? 0 : (piece - 1)->end;
    piece_ = *piece;
  }
  const FoldedMatrix& matrix_;
  int64_t chunk_begin_ = 0, rotation_ = 0, piece_begin_ = 0;
  FoldFactor piece_{0, 0};
};

void expand_part(const FoldedMatrix* matrix, const float* pool, const FoldRectangle* part, float* w) {
  const FoldHash& hash = matrix->hash;
  const FoldLayout& layout = matrix->layout;
  Walk walk(*matrix);
  const auto expand = [&](int64_t position, int64_t count, float* to) HWY_ATTR {
    const int64_t first = matrix->begin + position;
    walk.over(first, first + count, [&](int64_t i, int64_t cell, int64_t n, float factor) HWY_ATTR {
      // Numbers below the pool's size are the first chunk, whose signs are all +1.
      if (i < hash.cells)
        expand_run(pool + cell, n, PlainFactor(factor), to + (i - first));
      else
        expand_run(pool + cell, n, SignedFactor(hash, i, factor), to + (i - first));
    });
  };
  const auto [row_begin, row_end, col_begin, col_end] = *part;
  const int64_t width = col_end - col_begin;
  // Whole rows of a matrix that is numbered by rows are one stretch.
  if (layout.by_rows() && width == layout.cols) return expand(row_begin * width, (row_end - row_begin) * width, w);
  const int64_t tile_rows = layout.by_rows() ? layout.rows : layout.tile_rows;
  const int64_t tile_cols = layout.by_rows() ? layout.cols : layout.tile_cols;
  // Tile by tile, as the numbering goes: a row of a tile is what follows each other both in the matrix and in the
  // numbering.
  for (int64_t top = row_begin; top < row_end; top = (top / tile_rows + 1) * tile_rows) {
    const int64_t bottom = std::min(row_end, (top / tile_rows + 1) * tile_rows);
    for (int64_t left = col_begin; left < col_end; left = (left / tile_cols + 1) * tile_cols) {
      const int64_t right = std::min(layout.cols, (left / tile_cols + 1) * tile_cols);
      // The tiles of the last column may be narrower, and then their rows are shorter.
      const int64_t step = right - left / tile_cols * tile_cols, count = std::min(right, col_end) - left;
      int64_t position = layout.position(top, left);
      for (int64_t row = top; row < bottom; ++row, position += step)
        expand(position, count, w + (row - row_begin) * width + (left - col_begin));
    }
  }
}

/// run(element, n) for the elements at the positions [position, position + n).
template <class Run> HWY_INLINE void for_elements(const FoldLayout& layout, int64_t position, int64_t n, Run&& run) {
  if (layout.by_rows()) return run(position, n);
  while (n > 0) {
    // Begins inside of a tile, goes down its rows, and starts again with the next tile.
    const int64_t element = layout.element(position), row = element / layout.cols, col = element % layout.cols;
    const int64_t bottom = std::min(layout.rows, (row / layout.tile_rows + 1) * layout.tile_rows);
    const int64_t left = col / layout.tile_cols * layout.tile_cols,
                  right = std::min(layout.cols, left + layout.tile_cols);
    int64_t from = element, count = right - col;
    for (int64_t r = row; r < bottom && n > 0; ++r) {
      count = std::min(count, n);
      run(from, count);
      position += count, n -= count;
      from = (r + 1) * layout.cols + left, count = right - left;
    }
  }
}

/// Adds to the cells [begin, end) what the matrix's weights give them.
void contract_cells(const FoldedMatrix* matrix, const float* dw, int64_t begin, int64_t end, float* dpool) {
  constexpr int64_t kBlock = 4096;  // 16 KB of cells
  const FoldHash& hash = matrix->hash;
  const int64_t first = matrix->begin, last = first + matrix->layout.count() - 1;
  Walk walk(*matrix);
  const auto contract = [&](int64_t from, int64_t to) HWY_ATTR {
    walk.over(std::max(from, first), std::min(to, last + 1),
              [&](int64_t run_i, int64_t run_cell, int64_t run_n, float factor) HWY_ATTR {
                int64_t i = run_i, cell = run_cell;
                for_elements(matrix->layout, i - first, run_n, [&](int64_t element, int64_t n) HWY_ATTR {
                  if (i < hash.cells)
                    contract_run(dw + element, n, PlainFactor(factor), dpool + cell);
                  else
                    contract_run(dw + element, n, SignedFactor(hash, i, factor), dpool + cell);
                  i += n, cell += n;
                });
              });
  };
  // Blocks of cells outermost: a block stays in the cache while chunk after chunk adds to it. A chunk reads each cell
  // once, so that a cell meets its readers in ascending order.
  for (int64_t block = begin; block < end; block += kBlock) {
    const int64_t block_end = std::min(end, block + kBlock);
    for (int64_t chunk = first / hash.cells; chunk <= last / hash.cells; ++chunk) {
      walk.enter(chunk);
      // The number of a cell's reader is the cell plus one of two constants: one for the cells from the rotation on,
      // and one, a chunk's length greater, for the cells before it, which the chunk reaches after its wrap.
      const int64_t straight = walk.chunk_begin() - walk.rotation(), turned = straight + hash.cells;
      contract(straight + std::max(block, walk.rotation()), straight + block_end);
      contract(turned + block, turned + std::min(block_end, walk.rotation()));
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <array>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(expand_part);
HWY_EXPORT(contract_cells);

/// The cells that a matrix reads, as ascending ranges: of a pool that serves a whole model that may be few.
class CellsRead {
 public:
  explicit CellsRead(const FoldedMatrix& matrix) {
    const int64_t cells = matrix.hash.cells, begin = matrix.begin, end = begin + matrix.layout.count();
    if (end - begin >= cells) {
      add(0, cells);
    } else {  // two chunks at most
      const int64_t border = std::min(end, (begin / cells + 1) * cells);
      add_chunk(matrix.hash, begin, border);
      add_chunk(matrix.hash, border, end);
    }
    // Where two ranges overlap, the later one begins behind the earlier: each cell belongs to one thread.
    int64_t covered = 0;
    for (int r = 0; r < size_; ++r) {
      ranges_[r].begin = std::max(ranges_[r].begin, covered);
      covered = std::max(covered, ranges_[r].end);
    }
  }
  int64_t count() const {
    int64_t count = 0;
    for (int r = 0; r < size_; ++r) count += ranges_[r].count();
    return count;
  }
  /// f(begin, end) for the ranges of the cells from the first-th up to the last-th of them.
  template <class F> void part(int64_t first, int64_t last, F&& f) const {
    for (int r = 0; r < size_; ++r) {
      const int64_t count = ranges_[r].count(), from = std::max<int64_t>(0, first), to = std::min(count, last);
      if (from < to) f(ranges_[r].begin + from, ranges_[r].begin + to);
      first -= count, last -= count;
    }
  }

 private:
  struct Range {
    int64_t begin, end;
    int64_t count() const { return std::max<int64_t>(0, end - begin); }
  };
  void add(int64_t begin, int64_t end) {
    int at = size_++;
    for (; at > 0 && ranges_[at - 1].begin > begin; --at) ranges_[at] = ranges_[at - 1];
    ranges_[at] = {begin, end};
  }
  /// The weights [begin, end) of one chunk.
  void add_chunk(const FoldHash& hash, int64_t begin, int64_t end) {
    if (begin >= end) return;
    const int64_t cell = hash.cell(begin), cells_end = cell + end - begin;
    add(cell, std::min(cells_end, hash.cells));
    if (cells_end > hash.cells) add(0, cells_end - hash.cells);
  }
  std::array<Range, 4> ranges_{};
  int size_ = 0;
};

}  // namespace

void expand_rectangle(const FoldedMatrix& matrix, const float* pool, const FoldRectangle& part, float* w) {
  HWY_DYNAMIC_DISPATCH(expand_part)(&matrix, pool, &part, w);
}

void fold_expand(const Context& ctx, const FoldedMatrix& matrix, ConstView pool, int64_t row_begin, TensorView w) {
  parallel_for(ctx, w.rows(), w.cols(), [&](int64_t begin, int64_t end) {
    expand_rectangle(matrix, pool.row<float>(0), {row_begin + begin, row_begin + end, 0, w.cols()},
                     w.row<float>(begin));
  });
}

void fold_contract(const Context& ctx, const FoldedMatrix& matrix, ConstView dw, TensorView dpool) {
  const CellsRead cells(matrix);
  // About the weights that read one cell: how much work an item of the loop is.
  const int64_t readers = matrix.layout.count() / cells.count();
  parallel_for(ctx, cells.count(), readers, [&](int64_t first, int64_t last) {
    cells.part(first, last, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(contract_cells)(&matrix, dw.row<float>(0), begin, end, dpool.row<float>(0));
    });
  });
}

}  // namespace tessera::cpu
#endif
