#include "model/packed_attention.h"

#include <cstring>

#include "kernels/rope.h"

namespace tessera {
namespace {

/// Padding lies outside every segment; the kernels leave those rows alone, so they are cleared here.
void clear_padding(const Context& ctx, const TokenBatch& batch, TensorView view) {
  if (ctx.scratch.is_counting()) return;
  const auto clear = [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      std::memset(static_cast<std::byte*>(view.mutable_data()) + row * view.row_stride() * size_of(view.dtype), 0,
                  static_cast<size_t>(view.cols() * size_of(view.dtype)));
  };
  int64_t next = 0;
  for (const AttentionSegment& segment : batch.segments) {
    clear(next, segment.q_begin);
    next = segment.q_end;
  }
  clear(next, batch.tokens());
}

}  // namespace

void PackedAttention::attend(const Context& ctx, const AttentionSpec& spec, const TokenBatch& batch, TensorView q,
                             TensorView k, ConstView v, TensorView out, TensorView lse) {
  rope(ctx, q, spec.head_dim, batch.positions, spec.rope->cos.view(), spec.rope->sin.view(), RopeDirection::forward);
  rope(ctx, k, spec.head_dim, batch.positions, spec.rope->cos.view(), spec.rope->sin.view(), RopeDirection::forward);
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
                  .segments = batch.segments});
}

void PackedAttention::attend_backward(const Context& ctx, const AttentionSpec& spec, const TokenBatch& batch,
                                      const BlockSaved& s, ConstView dattended, TensorView dq, TensorView dk,
                                      TensorView dv) {
  for (const TensorView& view : {dq, dk, dv}) clear_padding(ctx, batch, view);
  attention_backward(ctx, {.q = s.q,
                           .k = s.k,
                           .v = s.v,
                           .out = s.attended,
                           .lse = s.lse,
                           .dout = dattended,
                           .dq = dq,
                           .dk = dk,
                           .dv = dv,
                           .heads = spec.heads,
                           .kv_heads = spec.kv_heads,
                           .head_dim = spec.head_dim,
                           .scale = spec.scale,
                           .segments = batch.segments});
  rope(ctx, dq, spec.head_dim, batch.positions, spec.rope->cos.view(), spec.rope->sin.view(), RopeDirection::backward);
  rope(ctx, dk, spec.head_dim, batch.positions, spec.rope->cos.view(), spec.rope->sin.view(), RopeDirection::backward);
}

}  // namespace tessera
