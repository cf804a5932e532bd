#pragma once
// The list of ops: a field and a line of `visit` each. A backend is a filled table.
// The ops' contracts stand in their own headers (kernels/<op>.h); each has a checked function that calls the table.

#include <type_traits>
#include <utility>

#include "kernels/attention.h"
#include "kernels/context.h"
#include "kernels/cross_entropy.h"
#include "kernels/dropout.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/fold.h"
#include "kernels/gemm.h"
#include "kernels/optimizer_steps.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/shards.h"
#include "kernels/swiglu.h"
#include "kernels/votes.h"

namespace tessera {

struct Kernels {
  std::string_view backend{};
  void (*gemm)(const Context&, const GemmArgs&);
  void (*rms_norm)(const Context&, ConstView x, ConstView weight, double eps, TensorView y, TensorView inv_rms);
  void (*rms_norm_backward)(const Context&, ConstView x, ConstView weight, ConstView inv_rms, ConstView dy,
                            TensorView dx, TensorView dweight);
  void (*rope)(const Context&, TensorView x, int64_t head_dim, std::span<const int32_t> positions, ConstView cos,
               ConstView sin, RopeDirection);
  void (*attention)(const Context&, const AttentionArgs&);
  void (*attention_backward)(const Context&, const AttentionBackwardArgs&);
  void (*swiglu)(const Context&, ConstView gate, ConstView up, TensorView y);
  void (*swiglu_backward)(const Context&, ConstView gate, ConstView up, ConstView dy, TensorView dgate, TensorView dup);
  void (*embedding)(const Context&, ConstView table, std::span<const int32_t> ids, TensorView y);
  void (*embedding_backward)(const Context&, std::span<const int32_t> ids, ConstView dy, TensorView dtable);
  void (*softmax_chunk)(const Context&, const SoftmaxChunkArgs&);
  void (*softmax_gradient_chunk)(const Context&, const SoftmaxGradientArgs&);
  void (*scale_rows)(const Context&, ConstView factors, TensorView x);
  void (*add)(const Context&, ConstView x, TensorView y);
  void (*convert)(const Context&, ConstView from, TensorView to);
  void (*gather_shards)(const Context&, ConstView pool, std::span<const int32_t> index, TensorView y);
  void (*scatter_shards_add)(const Context&, std::span<const int32_t> index, ConstView dy, TensorView dpool);
  void (*fold_expand)(const Context&, const FoldedMatrix&, ConstView pool, int64_t row_begin, TensorView w);
  void (*fold_contract)(const Context&, const FoldedMatrix&, ConstView dw, TensorView dpool);
  void (*fold_gemm)(const Context&, const FoldedMatrix&, ConstView pool, ConstView x, double beta, TensorView y);
  void (*dropout)(const Context&, ConstView x, const DropoutKey&, TensorView y, Write);
  double (*sum_of_squares)(const Context&, ConstView x);
  void (*adamw_step)(const Context&, const AdamWArgs&);
  void (*sgd_step)(const Context&, const SgdArgs&);
  void (*perturb)(const Context&, ConstView values, int64_t first, const Direction&, float scale, TensorView out);
  void (*vote_update)(const Context&, std::span<float> values, int64_t first, std::span<const VoteGroup>);
  void (*vote_sum)(const Context&, int64_t first, const VoteGroup&, std::span<int32_t> sum);
  StateDigest (*state_digest)(const Context&, std::span<const float> values, int64_t first);

  /// Calls v(name, pointer to member) for every op.
  template <class Visitor> static void visit(Visitor&& v) {
    v("gemm", &Kernels::gemm);
    v("rms_norm", &Kernels::rms_norm);
    v("rms_norm_backward", &Kernels::rms_norm_backward);
    v("rope", &Kernels::rope);
    v("attention", &Kernels::attention);
    v("attention_backward", &Kernels::attention_backward);
    v("swiglu", &Kernels::swiglu);
    v("swiglu_backward", &Kernels::swiglu_backward);
    v("embedding", &Kernels::embedding);
    v("embedding_backward", &Kernels::embedding_backward);
    v("softmax_chunk", &Kernels::softmax_chunk);
    v("softmax_gradient_chunk", &Kernels::softmax_gradient_chunk);
    v("scale_rows", &Kernels::scale_rows);
    v("add", &Kernels::add);
    v("convert", &Kernels::convert);
    v("gather_shards", &Kernels::gather_shards);
    v("scatter_shards_add", &Kernels::scatter_shards_add);
    v("fold_expand", &Kernels::fold_expand);
    v("fold_contract", &Kernels::fold_contract);
    v("fold_gemm", &Kernels::fold_gemm);
    v("dropout", &Kernels::dropout);
    v("sum_of_squares", &Kernels::sum_of_squares);
    v("adamw_step", &Kernels::adamw_step);
    v("sgd_step", &Kernels::sgd_step);
    v("perturb", &Kernels::perturb);
    v("vote_update", &Kernels::vote_update);
    v("vote_sum", &Kernels::vote_sum);
    v("state_digest", &Kernels::state_digest);
  }
};

/// The function type of an op: backends declare theirs as `Op<&Kernels::gemm> gemm;`.
template <auto field>
using Op = std::remove_pointer_t<std::remove_reference_t<decltype(std::declval<Kernels&>().*field)>>;

}  // namespace tessera
