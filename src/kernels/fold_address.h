#pragma once
// Where a folded weight lies: constexpr arithmetic on 64-bit integers, so that every backend, device code included
// (nvcc --expt-relaxed-constexpr), runs these definitions.

#include <algorithm>

#include "core/random.h"

namespace tessera {

/// RandomFold: a flat range of virtual weights, numbered i = 0 .. N-1, on m cells. The range is cut into chunks of m
/// and each chunk is turned by an offset of its own:
///   c = i div m,  o = i mod m,  h(i) = (u(c) + o) mod m,  s(i) = ±1;   u(0) = 0, and s(i) = +1 for i < m
/// so that every chunk is a bijection onto the cells and what is contiguous in i is contiguous in the cells with at
/// most one wrap a chunk. Desai & Shrivastava, "In defense of parameter sharing for model-compression", ICLR 2024.
struct FoldHash {
  int64_t cells = 1;  // m
  uint64_t rotation_key = 0, sign_key = 0;

  constexpr FoldHash() = default;
  constexpr FoldHash(uint64_t seed, int64_t cells)
      : cells(cells), rotation_key(hash_key({seed, 0x525053})), sign_key(hash_key({seed, 0x53474E})) {}

  /// u(c), in [0, m).
  constexpr int64_t rotation(int64_t chunk) const {
    if (chunk == 0) return 0;
    return static_cast<int64_t>(draw_below(rotation_key, static_cast<uint64_t>(chunk), static_cast<uint64_t>(cells)));
  }
  /// h(i)
  constexpr int64_t cell(int64_t i) const {
    const int64_t turned = rotation(i / cells) + i % cells;
    return turned < cells ? turned : turned - cells;
  }
  /// s(i) < 0: the top bit of a hash of i.
  constexpr bool negative(int64_t i) const {
    return i >= cells && mix64(sign_key + static_cast<uint64_t>(i) * kGamma64) >> 63 != 0;
  }
  /// The weight of a chunk that reads the cell: h(reader(c, j)) = j. It exists when it is below N.
  constexpr int64_t reader(int64_t chunk, int64_t cell) const {
    const int64_t o = cell - rotation(chunk);
    return chunk * cells + (o < 0 ? o + cells : o);
  }
};

/// In which order the elements of a matrix [rows, cols] are numbered: row-major over tiles, row-major within a tile;
/// tiles at the lower and right edge are cut. Whole rows (the default) are tiles of one row.
struct FoldLayout {
  int64_t rows = 0, cols = 0, tile_rows = 1, tile_cols = 0;  // tile_cols 0: cols

  constexpr int64_t count() const { return rows * cols; }
  constexpr bool by_rows() const { return tile_rows == 1 || tile_cols == 0; }
  /// Elements from (row, col) on that follow each other both in the row and in the numbering.
  constexpr int64_t run(int64_t row, int64_t col) const {
    if (by_rows()) return count() - row * cols - col;
    return std::min(cols, (col / tile_cols + 1) * tile_cols) - col;
  }
  /// The number of an element.
  constexpr int64_t position(int64_t row, int64_t col) const {
    if (by_rows()) return row * cols + col;
    const int64_t band = row / tile_rows * tile_rows, left = col / tile_cols * tile_cols;
    const int64_t height = std::min(tile_rows, rows - band), width = std::min(tile_cols, cols - left);
    return band * cols + left * height + (row - band) * width + col - left;
  }
  /// Its inverse, as row · cols + col.
  constexpr int64_t element(int64_t position) const {
    if (by_rows()) return position;
    const int64_t band = position / (tile_rows * cols) * tile_rows, in_band = position - band * cols;
    const int64_t height = std::min(tile_rows, rows - band), left = in_band / (tile_cols * height) * tile_cols;
    const int64_t width = std::min(tile_cols, cols - left), in_tile = in_band - left * height;
    return (band + in_tile / width) * cols + left + in_tile % width;
  }
};

}  // namespace tessera
