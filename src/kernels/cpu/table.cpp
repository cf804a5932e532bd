// The reference's table with fast kernels in the place of its own, where there are any.

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/reference/reference_kernels.h"

namespace tessera::cpu {

const Kernels& table() {
  static const Kernels kTable = [] {
    // Ops that are not named here stay the reference's: softmax_begin, softmax_finish, distill_begin and distill_finish
    // work on a few numbers a row, beside a row of logits for each.
    Kernels table = reference::table();
    table.backend = "cpu";
    table.gemm = gemm;
    table.attention = attention;
    table.attention_backward = attention_backward;
    table.paged_attention = paged_attention;
    table.write_pages = write_pages;
    table.merge_attention = merge_attention;
    table.rms_norm = rms_norm;
    table.rms_norm_backward = rms_norm_backward;
    table.rope = rope;
    table.swiglu = swiglu;
    table.swiglu_backward = swiglu_backward;
    table.embedding = embedding;
    table.embedding_backward = embedding_backward;
    table.softmax_chunk = softmax_chunk;
    table.softmax_gradient_chunk = softmax_gradient_chunk;
    table.distill_chunk = distill_chunk;
    table.distill_gradient_chunk = distill_gradient_chunk;
    table.tail_loss = tail_loss;
    table.fill = fill;
    table.scale_rows = scale_rows;
    table.add = add;
    table.scale = scale;
    table.add_dot = add_dot;
    table.scale_columns = scale_columns;
    table.add_bias = add_bias;
    table.add_column_sums = add_column_sums;
    table.add_column_squares = add_column_squares;
    table.add_cosines = add_cosines;
    table.convert = convert;
    table.gather_shards = gather_shards;
    table.scatter_shards_add = scatter_shards_add;
    table.fold_expand = fold_expand;
    table.fold_contract = fold_contract;
    table.fold_gemm = fold_gemm;
    table.dropout = dropout;
    table.sum_of_squares = sum_of_squares;
    table.adamw_step = adamw_step;
    table.sgd_step = sgd_step;
    table.perturb = perturb;
    table.vote_update = vote_update;
    table.vote_sum = vote_sum;
    table.add_integers = add_integers;
    table.state_digest = state_digest;
    return table;
  }();
  return kTable;
}

}  // namespace tessera::cpu
