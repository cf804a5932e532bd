#pragma once
// What fold_gemm takes from fold: parts of a folded matrix, made where they are multiplied.

#include "kernels/fold.h"

namespace tessera::cpu {

/// Rows [row_begin, row_end) and columns [col_begin, col_end) of a folded matrix.
struct FoldRectangle {
  int64_t row_begin, row_end, col_begin, col_end;
};

/// w = that part of W, its rows behind each other. On the calling thread.
void expand_rectangle(const FoldedMatrix&, const float* pool, const FoldRectangle&, float* w);

}  // namespace tessera::cpu
