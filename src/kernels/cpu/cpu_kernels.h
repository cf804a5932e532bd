#pragma once
// cpu/: f32 arithmetic with Highway SIMD (the widest instruction set found at run time), OpenMP and CBLAS.
// Results do not depend on the number of threads: work is cut in fixed pieces and sums are joined in their order.

#include "kernels/table.h"

namespace tessera::cpu {

void gemm(const Context&, const GemmArgs&);
void attention(const Context&, const AttentionArgs&);
void attention_backward(const Context&, const AttentionBackwardArgs&);
void rms_norm(const Context&, ConstView x, ConstView weight, double eps, TensorView y, TensorView inv_rms);
void rms_norm_backward(const Context&, ConstView x, ConstView weight, ConstView inv_rms, ConstView dy, TensorView dx,
                       TensorView dweight);
void rope(const Context&, TensorView x, int64_t head_dim, std::span<const int32_t> positions, ConstView cos,
          ConstView sin, RopeDirection);
void swiglu(const Context&, ConstView gate, ConstView up, TensorView y);
void swiglu_backward(const Context&, ConstView gate, ConstView up, ConstView dy, TensorView dgate, TensorView dup);
void embedding(const Context&, ConstView table, std::span<const int32_t> ids, TensorView y);
void embedding_backward(const Context&, std::span<const int32_t> ids, ConstView dy, TensorView dtable);
void softmax_chunk(const Context&, const SoftmaxChunkArgs&);
void softmax_gradient_chunk(const Context&, const SoftmaxGradientArgs&);
void scale_rows(const Context&, ConstView factors, TensorView x);
void add(const Context&, ConstView x, TensorView y);
void convert(const Context&, ConstView from, TensorView to);
void gather_shards(const Context&, ConstView pool, std::span<const int32_t> index, TensorView y);
void scatter_shards_add(const Context&, std::span<const int32_t> index, ConstView dy, TensorView dpool);
void fold_expand(const Context&, const FoldedMatrix&, ConstView pool, int64_t row_begin, TensorView w);
void fold_contract(const Context&, const FoldedMatrix&, ConstView dw, TensorView dpool);
void fold_gemm(const Context&, const FoldedMatrix&, ConstView pool, ConstView x, double beta, TensorView y);
void dropout(const Context&, ConstView x, const DropoutKey&, TensorView y, Write);
double sum_of_squares(const Context&, ConstView x);
void adamw_step(const Context&, const AdamWArgs&);
void sgd_step(const Context&, const SgdArgs&);
void perturb(const Context&, ConstView values, int64_t first, const Direction&, float scale, TensorView out);
void vote_update(const Context&, std::span<float> values, int64_t first, std::span<const VoteGroup>);
void vote_sum(const Context&, int64_t first, const VoteGroup&, std::span<int32_t> sum);
StateDigest state_digest(const Context&, std::span<const float> values, int64_t first);

/// The filled table: "reference" with these in place.
const Kernels& table();

}  // namespace tessera::cpu
