// A token's key and value depend on the tokens before it alone: once computed they stay as they are, and a new token
// attends to them without running its predecessors again.

#include "infer/kv_cache.h"

#include "core/error.h"
#include "kernels/elementwise.h"

namespace tessera {

CachedAttention::CachedAttention(Arena& memory, const DecoderModel& model, int64_t slots, int64_t capacity)
    : lengths_(static_cast<size_t>(slots), 0), capacity_(capacity) {
  TS_CHECK(slots > 0 && capacity > 0, "a cache of {} slots of {} tokens", slots, capacity);
  const Shape shape{slots * capacity, model.config().key_width()};
  for (int layer = 0; layer < model.num_layers(); ++layer) {
    const TensorView k = memory.allocate(shape, model.activations());
    layers_.push_back({k, memory.allocate(shape, model.activations())});
  }
}

AttentionSegment CachedAttention::append(int64_t slot, int64_t q_begin, int64_t count) {
  TS_CHECK(0 <= slot && slot < slots(), "slot {} of {}", slot, slots());
  int64_t& length = lengths_[slot];
  TS_CHECK(count > 0 && length + count <= capacity_, "{} tokens behind {} in a slot for {}", count, length, capacity_);
  length += count;
  // Slots are of equal size, so that a slot's first row follows from its number.
  const int64_t begin = slot * capacity_;
  return {q_begin, q_begin + count, begin, begin + length};
}

void CachedAttention::truncate(int64_t slot, int64_t length) {
  TS_CHECK(0 <= length && length <= lengths_[slot], "{} tokens left of {}", length, lengths_[slot]);
  lengths_[slot] = length;
}

void CachedAttention::attend(const Context& ctx, const AttentionSpec& spec, const TokenBatch& batch, TensorView q,
                             TensorView k, ConstView v, TensorView out, TensorView lse) {
  const Layer& layer = layers_[static_cast<size_t>(spec.layer)];
  rotate(ctx, spec, batch, RopeDirection::forward, q, k);
  // Keys are kept as they are rotated: a token's position never changes.
  for (const AttentionSegment& s : batch.segments.host()) {
    // The pass's rows stand behind those that are there: the last of the segment's keys.
    const int64_t first = s.k_end - (s.q_end - s.q_begin);
    convert(ctx, k.slice_rows(s.q_begin, s.q_end), layer.k.slice_rows(first, s.k_end));
    convert(ctx, v.slice_rows(s.q_begin, s.q_end), layer.v.slice_rows(first, s.k_end));
  }
  attention(ctx, {.q = q,
                  .k = layer.k,
                  .v = layer.v,
                  .out = out,
                  .lse = lse,
                  .heads = spec.heads,
                  .kv_heads = spec.kv_heads,
                  .head_dim = spec.head_dim,
                  .scale = spec.scale,
                  .segments = batch.segments,
                  .window = spec.window});
}

}  // namespace tessera
