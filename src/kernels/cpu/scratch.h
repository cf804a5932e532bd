#pragma once
// How much of Context::scratch each cpu kernel takes, so that "counting" can plan it.

#include "kernels/table.h"

namespace tessera::cpu {

// Upper bounds by shapes and threads alone, so that a plan holds for every batch of its size. Each must be what the
// kernel allocates: a plan that is less than the peak fails in the arena.
int64_t gemm_scratch_bytes(const GemmArgs&, int threads);
int64_t fold_gemm_scratch_bytes(const FoldedMatrix&, int threads);
int64_t attention_scratch_bytes(const AttentionArgs&, int threads);
int64_t attention_backward_scratch_bytes(const AttentionBackwardArgs&, int threads);
int64_t paged_attention_scratch_bytes(const PagedAttentionArgs&, int threads);
int64_t sum_scratch_bytes(int64_t count);  // sum_of_squares, add_dot

}  // namespace tessera::cpu
