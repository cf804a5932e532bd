#include "model/packed_attention.h"

#include "kernels/elementwise.h"

namespace tessera {
namespace {

/// Padding lies outside every segment; the kernels leave those rows alone, so they are cleared here.
void clear_padding(const Context& ctx, const TokenBatch& batch, TensorView view) {
  int64_t next = 0;
  for (const AttentionSegment& segment : batch.segments.host()) {
    fill(ctx, 0, view.slice_rows(next, segment.q_begin));
    next = segment.q_end;
  }
  fill(ctx, 0, view.slice_rows(next, batch.tokens()));
}

}  // namespace

void PackedAttention::attend(const Context& ctx, const AttentionSpec& spec, const TokenBatch& batch, TensorView q,
                             TensorView k, ConstView v, TensorView out, TensorView lse) {
  rotate(ctx, spec, batch, RopeDirection::forward, q, k);
  clear_padding(ctx, batch, out);
  attention(ctx, {.q = q,
                  .k = k,
                  .v = v,
                  .out = out,
                  .lse = lse,
                  .heads = spec.heads,
                  .kv_heads = spec.kv_heads,
                  .head_dim = spec.head_dim,
                  .scale = spec.scale,
                  .segments = batch.segments,
                  .window = spec.window});
}

void PackedAttention::attend_backward(const Context& ctx, const AttentionSpec& spec, const TokenBatch& batch,
                                      const Attended& a, ConstView dout, TensorView dq, TensorView dk, TensorView dv) {
  for (const TensorView& view : {dq, dk, dv}) clear_padding(ctx, batch, view);
  attention_backward(ctx, {.q = a.q,
                           .k = a.k,
                           .v = a.v,
                           .out = a.out,
                           .lse = a.lse,
                           .dout = dout,
                           .dq = dq,
                           .dk = dk,
                           .dv = dv,
                           .heads = spec.heads,
                           .kv_heads = spec.kv_heads,
                           .head_dim = spec.head_dim,
                           .scale = spec.scale,
                           .segments = batch.segments,
                           .window = spec.window});
  rotate(ctx, spec, batch, RopeDirection::backward, dq, dk);
}

}  // namespace tessera
