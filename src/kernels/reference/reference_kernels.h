#pragma once
// reference/: the truth that other backends are tested against. Loops over the formula of the contract, sums in f64,
// data in f32 or f64, no cleverness and one thread.

#include "kernels/table.h"

namespace tessera::reference {

Op<&Kernels::gemm> gemm;
Op<&Kernels::rms_norm> rms_norm;
Op<&Kernels::rms_norm_backward> rms_norm_backward;
Op<&Kernels::rope> rope;
Op<&Kernels::attention> attention;
Op<&Kernels::attention_backward> attention_backward;
Op<&Kernels::paged_attention> paged_attention;
Op<&Kernels::write_pages> write_pages;
Op<&Kernels::merge_attention> merge_attention;
Op<&Kernels::swiglu> swiglu;
Op<&Kernels::swiglu_backward> swiglu_backward;
Op<&Kernels::embedding> embedding;
Op<&Kernels::embedding_backward> embedding_backward;
Op<&Kernels::softmax_begin> softmax_begin;
Op<&Kernels::softmax_chunk> softmax_chunk;
Op<&Kernels::softmax_finish> softmax_finish;
Op<&Kernels::softmax_gradient_chunk> softmax_gradient_chunk;
Op<&Kernels::distill_begin> distill_begin;
Op<&Kernels::distill_chunk> distill_chunk;
Op<&Kernels::distill_finish> distill_finish;
Op<&Kernels::distill_gradient_chunk> distill_gradient_chunk;
Op<&Kernels::tail_loss> tail_loss;
Op<&Kernels::fill> fill;
Op<&Kernels::scale_rows> scale_rows;
Op<&Kernels::add> add;
Op<&Kernels::scale> scale;
Op<&Kernels::add_dot> add_dot;
Op<&Kernels::scale_columns> scale_columns;
Op<&Kernels::add_bias> add_bias;
Op<&Kernels::add_column_sums> add_column_sums;
Op<&Kernels::add_column_squares> add_column_squares;
Op<&Kernels::add_cosines> add_cosines;
Op<&Kernels::convert> convert;
Op<&Kernels::gather_shards> gather_shards;
Op<&Kernels::scatter_shards_add> scatter_shards_add;
Op<&Kernels::fold_expand> fold_expand;
Op<&Kernels::fold_contract> fold_contract;
Op<&Kernels::fold_gemm> fold_gemm;
Op<&Kernels::dropout> dropout;
Op<&Kernels::sum_of_squares> sum_of_squares;
Op<&Kernels::adamw_step> adamw_step;
Op<&Kernels::sgd_step> sgd_step;
Op<&Kernels::perturb> perturb;
Op<&Kernels::vote_update> vote_update;
Op<&Kernels::vote_sum> vote_sum;
Op<&Kernels::add_integers> add_integers;
Op<&Kernels::state_digest> state_digest;

/// The filled table.
const Kernels& table();

}  // namespace tessera::reference
