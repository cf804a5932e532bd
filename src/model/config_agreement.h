#pragma once
// config.json against the tensors: what does not agree is told in one message, before anything is computed.

#include <span>

#include "io/safetensors.h"
#include "model/model_config.h"
#include "model/tensor_names.h"

namespace tessera {

/// Every weight of the model is there in its shape, and nothing else is. A tied matrix may be stored as the embedding,
/// as the head or as both; tables of rotary positions, which follow from config.json, may lie beside them.
/// @param source  under the files' own names
/// @param specs   the weights that config.json makes
/// @throws UserError telling how many tensors contradict config.json, and of the first three kinds one each: its name
///   in the files, the shape found and the shape expected, and the keys that say so
void require_agreement(const SafetensorsReader& source, const ModelConfig&, std::span<const WeightSpec> specs,
                       const TensorNames&);

}  // namespace tessera
