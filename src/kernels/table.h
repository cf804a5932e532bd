#pragma once
// The list of ops: a field and a line of `visit` each. A backend is a filled table.
// The ops' contracts stand in their own headers (kernels/<op>.h); each has a checked function that calls the table.

#include <type_traits>
#include <utility>

#include "kernels/attention.h"
#include "kernels/calibration.h"
#include "kernels/columns.h"
#include "kernels/context.h"
#include "kernels/cross_entropy.h"
#include "kernels/distillation.h"
#include "kernels/dropout.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/fold.h"
#include "kernels/gemm.h"
#include "kernels/key_value_pages.h"
#include "kernels/optimizer_steps.h"
#include "kernels/paged_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/shards.h"
#include "kernels/swiglu.h"
#include "kernels/tail_loss.h"
#include "kernels/votes.h"

namespace tessera {

struct Kernels {
  std::string_view backend{};
  void (*gemm)(const Context&, const GemmArgs&);
  void (*rms_norm)(const Context&, ConstView x, ConstView weight, double eps, TensorView y, TensorView inv_rms);
  void (*rms_norm_backward)(const Context&, ConstView x, ConstView weight, ConstView inv_rms, ConstView dy,
                            TensorView dx, TensorView dweight);
  void (*rope)(const Context&, TensorView x, int64_t head_dim, IndexArray<int32_t> positions, ConstView cos,
               ConstView sin, RopeDirection);
  void (*attention)(const Context&, const AttentionArgs&);
  void (*attention_backward)(const Context&, const AttentionBackwardArgs&);
  void (*paged_attention)(const Context&, const PagedAttentionArgs&);
  void (*write_pages)(const Context&, const WritePagesArgs&);
  void (*merge_attention)(const Context&, ConstView other_out, ConstView other_lse, int64_t head_dim, TensorView out,
                          TensorView lse);
  void (*swiglu)(const Context&, ConstView gate, ConstView up, TensorView y);
  void (*swiglu_backward)(const Context&, ConstView gate, ConstView up, ConstView dy, TensorView dgate, TensorView dup);
  void (*embedding)(const Context&, ConstView table, IndexArray<int32_t> ids, TensorView y);
  void (*embedding_backward)(const Context&, IndexArray<int32_t> ids, ConstView dy, TensorView dtable);
  void (*softmax_begin)(const Context&, const SoftmaxRows&);
  void (*softmax_chunk)(const Context&, const SoftmaxChunkArgs&);
  void (*softmax_finish)(const Context&, const SoftmaxFinishArgs&);
  void (*softmax_gradient_chunk)(const Context&, const SoftmaxGradientArgs&);
  void (*distill_begin)(const Context&, const DistillRows&);
  void (*distill_chunk)(const Context&, const DistillChunkArgs&);
  void (*distill_finish)(const Context&, const DistillFinishArgs&);
  void (*distill_gradient_chunk)(const Context&, const DistillGradientArgs&);
  void (*tail_loss)(const Context&, const TailLossArgs&);
  void (*fill)(const Context&, double value, TensorView y);
  void (*scale_rows)(const Context&, ConstView factors, TensorView x);
  void (*add)(const Context&, ConstView x, TensorView y);
  void (*scale)(const Context&, double factor, ConstView x, TensorView y, Write);
  void (*add_dot)(const Context&, ConstView x, ConstView a, ConstView b, TensorView sum);
  void (*scale_columns)(const Context&, ConstView x, ConstView factors, TensorView y, Write);
  void (*add_bias)(const Context&, ConstView bias, TensorView y);
  void (*add_column_sums)(const Context&, ConstView x, ConstView y, TensorView sums);
  void (*add_column_squares)(const Context&, ConstView x, IndexArray<int32_t> rows, TensorView sums);
  void (*add_cosines)(const Context&, ConstView x, ConstView y, IndexArray<int32_t> rows, TensorView sum);
  void (*convert)(const Context&, ConstView from, TensorView to);
  void (*gather_shards)(const Context&, ConstView pool, IndexArray<int32_t> index, TensorView y);
  void (*scatter_shards_add)(const Context&, IndexArray<int32_t> index, ConstView dy, TensorView dpool);
  void (*fold_expand)(const Context&, const FoldedMatrix&, ConstView pool, int64_t row_begin, TensorView w);
  void (*fold_contract)(const Context&, const FoldedMatrix&, ConstView dw, TensorView dpool);
  void (*fold_gemm)(const Context&, const FoldedMatrix&, ConstView pool, ConstView x, double beta, TensorView y);
  void (*dropout)(const Context&, ConstView x, const DropoutKey&, TensorView y, Write);
  void (*sum_of_squares)(const Context&, ConstView x, TensorView sum);
  void (*adamw_step)(const Context&, const AdamWArgs&);
  void (*sgd_step)(const Context&, const SgdArgs&);
  void (*perturb)(const Context&, ConstView values, int64_t first, const Direction&, float scale, TensorView out);
  void (*vote_update)(const Context&, TensorView values, int64_t first, std::span<const VoteGroup>);
  void (*vote_sum)(const Context&, int64_t first, const VoteGroup&, TensorView sum);
  void (*add_integers)(const Context&, ConstView x, float factor, TensorView y);
  void (*state_digest)(const Context&, ConstView values, int64_t first, TensorView digest);

  /// Names an op's field by its type, so that code can be made for each op.
  template <auto field> struct Field { static constexpr auto of = field; };
  /// Calls v(name, Field) for every op.
  template <class Visitor> static void visit(Visitor&& v) {
    v("gemm", Field<&Kernels::gemm>());
    v("rms_norm", Field<&Kernels::rms_norm>());
    v("rms_norm_backward", Field<&Kernels::rms_norm_backward>());
    v("rope", Field<&Kernels::rope>());
    v("attention", Field<&Kernels::attention>());
    v("attention_backward", Field<&Kernels::attention_backward>());
    v("paged_attention", Field<&Kernels::paged_attention>());
    v("write_pages", Field<&Kernels::write_pages>());
    v("merge_attention", Field<&Kernels::merge_attention>());
    v("swiglu", Field<&Kernels::swiglu>());
    v("swiglu_backward", Field<&Kernels::swiglu_backward>());
    v("embedding", Field<&Kernels::embedding>());
    v("embedding_backward", Field<&Kernels::embedding_backward>());
    v("softmax_begin", Field<&Kernels::softmax_begin>());
    v("softmax_chunk", Field<&Kernels::softmax_chunk>());
    v("softmax_finish", Field<&Kernels::softmax_finish>());
    v("softmax_gradient_chunk", Field<&Kernels::softmax_gradient_chunk>());
    v("distill_begin", Field<&Kernels::distill_begin>());
    v("distill_chunk", Field<&Kernels::distill_chunk>());
    v("distill_finish", Field<&Kernels::distill_finish>());
    v("distill_gradient_chunk", Field<&Kernels::distill_gradient_chunk>());
    v("tail_loss", Field<&Kernels::tail_loss>());
    v("fill", Field<&Kernels::fill>());
    v("scale_rows", Field<&Kernels::scale_rows>());
    v("add", Field<&Kernels::add>());
    v("scale", Field<&Kernels::scale>());
    v("add_dot", Field<&Kernels::add_dot>());
    v("scale_columns", Field<&Kernels::scale_columns>());
    v("add_bias", Field<&Kernels::add_bias>());
    v("add_column_sums", Field<&Kernels::add_column_sums>());
    v("add_column_squares", Field<&Kernels::add_column_squares>());
    v("add_cosines", Field<&Kernels::add_cosines>());
    v("convert", Field<&Kernels::convert>());
    v("gather_shards", Field<&Kernels::gather_shards>());
    v("scatter_shards_add", Field<&Kernels::scatter_shards_add>());
    v("fold_expand", Field<&Kernels::fold_expand>());
    v("fold_contract", Field<&Kernels::fold_contract>());
    v("fold_gemm", Field<&Kernels::fold_gemm>());
    v("dropout", Field<&Kernels::dropout>());
    v("sum_of_squares", Field<&Kernels::sum_of_squares>());
    v("adamw_step", Field<&Kernels::adamw_step>());
    v("sgd_step", Field<&Kernels::sgd_step>());
    v("perturb", Field<&Kernels::perturb>());
    v("vote_update", Field<&Kernels::vote_update>());
    v("vote_sum", Field<&Kernels::vote_sum>());
    v("add_integers", Field<&Kernels::add_integers>());
    v("state_digest", Field<&Kernels::state_digest>());
  }
};

/// The function type of an op: backends declare theirs as `Op<&Kernels::gemm> gemm;`.
template <auto field>
using Op = std::remove_pointer_t<std::remove_reference_t<decltype(std::declval<Kernels&>().*field)>>;

}  // namespace tessera
