#pragma once
// Dropout whose masks are functions of what is dropped, so that nothing has to be kept for the backward pass.

#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

/// Names a dropout mask: it is a function of these and the column only, so ranks and micro-batches do not matter.
struct DropoutKey {
  uint64_t seed;  // run seed
  uint64_t step;
  uint32_t weight;                 // number of the weight whose input is dropped
  float probability;               // in [0, 1)
  IndexArray<int64_t> draw_index;  // [tokens] the token's number in the global batch

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) { for_each_of(v, args.draw_index); }
};

/// y = (or +=) x · keep / (1 − p). The mask is its own adjoint. x, y [tokens, dim] compute dtype; y may alias x when
/// assigned. Element (t, c) is kept when lane c % 8 (16 bits, low half of a word first) of
///   philox4x32(counter = {lo(draw_index[t]), hi(draw_index[t]), c / 8, weight},
///   key = the two halves of mix64(mix64(seed) ^ step))
/// is at least round(p · 65536): a lane is bits 16·(c%2) .. 16·(c%2)+15 of word (c % 8) / 2.
void dropout(const Context&, ConstView x, const DropoutKey&, TensorView y, Write);

}  // namespace tessera
