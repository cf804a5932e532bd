#pragma once
// How large a safetensors file is, before it is written.

#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// Bytes of the file that write_safetensors (safetensors.h) writes of these tensors, without metadata. Their elements
/// are not read.
int64_t safetensors_bytes(const std::vector<std::pair<std::string, ConstView>>& tensors);

}  // namespace tessera
