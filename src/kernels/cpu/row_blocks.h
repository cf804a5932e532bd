#pragma once
// Sums over the rows of a matrix, the same for any number of threads: blocks of rows have a partial sum each, and these
// are joined in their order.

#include "core/tensor.h"

namespace tessera::cpu {

constexpr int64_t kRowBlock = 64;  // rows that share one partial sum: its cost is then 1/64 of the reading

inline int64_t row_blocks(int64_t rows) { return (rows + kRowBlock - 1) / kRowBlock; }

/// Bytes of the partial sums [blocks, cols] of a matrix.
inline int64_t row_blocks_bytes(const ConstView& x) {
  return row_blocks(x.rows()) * x.cols() * static_cast<int64_t>(sizeof(float));
}

/// sums += the partial sums, block after block.
inline void join_row_blocks(const float* partial, int64_t blocks, int64_t cols, float* sums) {
  // On one thread: there is one row of partial sums for every 64 rows that were read.
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t c = 0; c < cols; ++c) sums[c] += partial[b * cols + c];
}

}  // namespace tessera::cpu
