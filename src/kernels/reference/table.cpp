#include "kernels/reference/reference_kernels.h"

namespace tessera::reference {

const Kernels& table() {
  static const Kernels kTable{
      .backend = "reference",
      .gemm = gemm,
      .rms_norm = rms_norm,
      .rms_norm_backward = rms_norm_backward,
      .rope = rope,
      .attention = attention,
      .attention_backward = attention_backward,
      .paged_attention = paged_attention,
      .write_pages = write_pages,
      .merge_attention = merge_attention,
      .swiglu = swiglu,
      .swiglu_backward = swiglu_backward,
      .embedding = embedding,
      .embedding_backward = embedding_backward,
      .softmax_begin = softmax_begin,
      .softmax_chunk = softmax_chunk,
      .softmax_finish = softmax_finish,
      .softmax_gradient_chunk = softmax_gradient_chunk,
      .distill_begin = distill_begin,
      .distill_chunk = distill_chunk,
      .distill_finish = distill_finish,
      .distill_gradient_chunk = distill_gradient_chunk,
      .tail_loss = tail_loss,
      .fill = fill,
      .scale_rows = scale_rows,
      .add = add,
      .scale = scale,
      .add_dot = add_dot,
      .scale_columns = scale_columns,
      .add_bias = add_bias,
      .add_column_sums = add_column_sums,
      .add_column_squares = add_column_squares,
      .add_cosines = add_cosines,
      .convert = convert,
      .gather_shards = gather_shards,
      .scatter_shards_add = scatter_shards_add,
      .fold_expand = fold_expand,
      .fold_contract = fold_contract,
      .fold_gemm = fold_gemm,
      .dropout = dropout,
      .sum_of_squares = sum_of_squares,
      .adamw_step = adamw_step,
      .sgd_step = sgd_step,
      .perturb = perturb,
      .vote_update = vote_update,
      .vote_sum = vote_sum,
      .add_integers = add_integers,
      .state_digest = state_digest,
  };
  return kTable;
}

}  // namespace tessera::reference
