#pragma once
// Attention over packed documents and over cached keys and values, forward and backward.

#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

/// One document: queries are rows [q_begin, q_end) of q, keys rows [k_begin, k_end) of k and v. Causal, aligned at the
/// end: query i of n sees the keys j <= (k_end − k_begin) − n + i. Whole documents in training have equal ranges; with
/// a key-value cache there are more keys than queries.
struct AttentionSegment {
  int64_t q_begin, q_end, k_begin, k_end;
};

/// Grouped-query attention over packed documents:  out = softmax(scale · q kᵀ + causal mask) v  for each head;
/// query head h reads key-value head h / (heads / kv_heads). With a window W > 0 a query sees the last W of these keys,
/// its own the last of them.
///   q, out [tokens, heads · head_dim], k, v [keys, kv_heads · head_dim], lse [tokens, heads]: compute dtype, rows may
///   be strided.
///   lse = log Σ exp(scores), kept for the backward pass; empty to skip. Rows outside every segment are left untouched.
/// Scores are formed block by block; no [tokens, tokens] buffer. out may not alias an input.
struct AttentionArgs {
  ConstView q, k, v;
  TensorView out, lse;
  int64_t heads, kv_heads, head_dim;
  double scale;
  IndexArray<AttentionSegment> segments;
  int64_t window = 0;  // 0: all keys

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.q, args.k, args.v, args.out, args.lse, args.segments);
  }
};
void attention(const Context&, const AttentionArgs&);

/// Gradients of the above. dq, dk, dv are assigned for rows in segments (segments share no rows); other rows untouched.
/// With P = exp(scale q kᵀ − lse), D = rowsum(dout · out): dV = Pᵀ dout, dS = P (dout vᵀ − D), dq = scale dS k,
/// dk = scale dSᵀ q. Heads that share a key-value head are summed in ascending order.
/// Dao et al. 2022, arXiv:2205.14135.
struct AttentionBackwardArgs {
  ConstView q, k, v, out, lse, dout;
  TensorView dq, dk, dv;
  int64_t heads, kv_heads, head_dim;
  double scale;
  IndexArray<AttentionSegment> segments;
  int64_t window = 0;  // 0: all keys

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.q, args.k, args.v, args.out, args.lse, args.dout, args.dq, args.dk, args.dv, args.segments);
  }
};
void attention_backward(const Context&, const AttentionBackwardArgs&);

}  // namespace tessera
