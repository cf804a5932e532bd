#pragma once
// Rotary positions (RoPE, Su et al. 2021, arXiv:2104.09864): the angles of every position, reckoned once.

#include "core/tensor.h"
#include "model/model_config.h"

namespace tessera {

/// cos and sin of position · frequency, in the activations' dtype.
/// frequency i = theta^(-2 i / head_dim), rescaled as RopeConfig says.
struct RopeTable {
  Tensor cos, sin;  // [positions, head_dim / 2]
};
RopeTable make_rope_table(const ModelConfig&, int64_t positions, DType activations, Device = {});

}  // namespace tessera
