#pragma once
#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

enum class RopeDirection : uint8_t { forward, backward };  // backward rotates by the negative angle (the adjoint)

/// Rotary position embedding in place, Hugging Face's half-rotation layout. For each row t, head h and i < head_dim/2, with
/// c = cos[positions[t], i], s = sin[positions[t], i]:  (x_i, x_{i+half}) <- (x_i c − x_{i+half} s, x_{i+half} c + x_i s).
/// @param x         [tokens, heads · head_dim] compute dtype, rows may be strided
/// @param cos, sin  [positions, head_dim / 2] compute dtype
/// Su et al. 2021, arXiv:2104.09864.
void rope(const Context&, TensorView x, int64_t head_dim, IndexArray<int32_t> positions, ConstView cos, ConstView sin,
          RopeDirection);

}  // namespace tessera
