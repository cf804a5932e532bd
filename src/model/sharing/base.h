#pragma once
#include <span>

#include "io/safetensors.h"
#include "model/weights.h"

namespace tessera {

/// How the base weights are held.
struct BaseOptions {
  bool trainable = false;      // full training: f32 values in the pool; otherwise frozen
  DType storage = DType::f32;  // of frozen weights that are drawn, not read
};

/// The plain base: every storage is one slot. Weights are read from `source` (frozen ones stay mapped, in the file's type) or drawn when it is null.
/// @throws UserError naming a tensor that is missing, has another shape or no floating dtype
std::vector<ViewPtr> bind_plain(std::span<const WeightSpec>, ParameterPool&, const SafetensorsReader* source,
                                const BaseOptions&);

}  // namespace tessera
