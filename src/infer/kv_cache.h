#pragma once
// Keys and values of several sequences, kept from pass to pass, so that a pass computes new tokens only.

#include <vector>

#include "model/decoder.h"

namespace tessera {

/// Causal attention over what each sequence has been fed so far. A sequence lives in a slot of `capacity` rows; all
/// slots of a layer lie in one tensor, so that one kernel call serves the batch,
/// and a segment's key range says which slot it reads:
///
///   keys of a layer   |k k k k k . . .|k k k . . . . .|k k k k k k k .|
///                      slot 0, length 5  slot 1, length 3
///
/// A pass may feed any number of tokens to any slots: whole prompts, pieces of prompts and single tokens mixed. The
/// batch's segments must be those that `append` gave for the pass, and together cover its rows.
class CachedAttention final : public AttentionContext {
 public:
  /// The cache is taken from `memory` in the dtype of the model's activations, and lives as long as the memory's scope.
  CachedAttention(Arena& memory, const DecoderModel&, int64_t slots, int64_t capacity);

  /// Makes room for rows [q_begin, q_begin + count) of the coming pass behind the slot's tokens. Their positions are
  /// length(slot) and up, as it was before the call.
  AttentionSegment append(int64_t slot, int64_t q_begin, int64_t count);
  int64_t length(int64_t slot) const { return lengths_[slot]; }  // tokens, those of the coming pass included
  /// Forgets the slot's tokens from `length` on; 0 frees it for another sequence.
  void truncate(int64_t slot, int64_t length);
  int64_t slots() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t capacity() const { return capacity_; }

  /// Turns q and k, stores k and v, and attends over the stored rows.
  void attend(const Context&, const AttentionSpec&, const TokenBatch&, TensorView q, TensorView k, ConstView v,
              TensorView out, TensorView lse) override;

 private:
  struct Layer {
    TensorView k, v;  // [slots · capacity, kv_heads · head_dim]
  };
  std::vector<Layer> layers_;
  // Tokens of each slot; rows behind them are left over from other sequences and are never read.
  std::vector<int64_t> lengths_;
  int64_t capacity_;
};

}  // namespace tessera
