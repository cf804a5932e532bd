#pragma once
// How much of Context::scratch each cpu kernel takes, so that "counting" can plan it.

#include "kernels/table.h"

namespace tessera::cpu {

int64_t gemm_scratch_bytes(const GemmArgs&, int threads);
int64_t fold_gemm_scratch_bytes(const FoldedMatrix&, int threads);
int64_t attention_scratch_bytes(const AttentionArgs&, int threads);
int64_t attention_backward_scratch_bytes(const AttentionBackwardArgs&, int threads);
int64_t rms_norm_backward_scratch_bytes(ConstView x, TensorView dweight);
int64_t sum_scratch_bytes(int64_t count);  // sum_of_squares, add_dot
int64_t add_column_sums_scratch_bytes(ConstView x);

}  // namespace tessera::cpu
