#pragma once
// What scoring rows takes, against labels alone (head.cpp) or a teacher too (distill_head.cpp): the final norm of the
// scored rows, the output projection's weight, and the way back of their gradients.

#include <functional>

#include "kernels/cross_entropy.h"
#include "model/head.h"

namespace tessera {

/// Scored rows of hidden states, gathered and normed; from the context's scratch.
struct NormedRows {
  TensorView picked, normed;  // [rows, D]
  TensorView inv_rms;         // [rows]
};
NormedRows norm_rows(const Context&, const HeadPart&, const PoolRead&, ConstView hidden, IndexArray<int32_t> rows);

/// An output projection's weight as cross_entropy and distill take it: where it lies, or made tile by tile.
struct HeadWeight {
  ConstView stored;  // empty when it is made
  WeightRows made{};
  int64_t vocab = 0, tile = 0;  // set with `made`: rows of the weight, and those that are made at once
};
enum class Tiles { allowed, none };
/// @param tiles  none: a weight that does not lie anywhere is made whole, for a backward pass
HeadWeight head_weight(const Context&, const HeadPart&, const PoolRead&, Tiles);

/// Calls form(dnormed, dweight), which assigns the gradient of the normed rows and adds that of the projection's weight
/// (empty when frozen), and hands both on: to the pool, the final norm's weight, and rows of dhidden.
void backward_of_rows(const Pass&, const HeadPart&, const NormedRows&, IndexArray<int32_t> rows, TensorView dhidden,
                      const std::function<void(TensorView dnormed, TensorView dweight)>& form);

/// Calls f(values, first, count) for runs of the ascending scored rows that read the decoder's end alike.
void for_rows_alike(const Pass&, const HeadPart&, IndexArray<int32_t> rows,
                    const std::function<void(const PoolRead&, int64_t first, int64_t count)>& f);

/// The part of the arguments that belongs to some of the scored rows.
HeadArgs slice_rows(const HeadArgs&, int64_t first, int64_t count);

}  // namespace tessera
