#pragma once
// Folders whose weights another program has quantised: what they are and how to have them back in f32, bf16 or f16.

#include <filesystem>
#include <string>

#include "core/json.h"
#include "io/safetensors.h"

namespace tessera {

/// By config.json: "quantization_config" (GPTQ, AWQ, bitsandbytes, fp8, compressed-tensors and others), "quantization"
/// (MLX).
/// @param where  place of model.path in the recipe
/// @throws UserError for such a folder
void refuse_quantised_config(const std::filesystem::path& folder, const Json& config, const std::string& where);

/// By the tensors, where config.json does not say it. @throws UserError naming one
void refuse_quantised_tensors(const std::filesystem::path& folder, const SafetensorsReader&);

/// What to do about weights quantised by `method`, a name that quant_method has; others may be given.
std::string quantised_hint(const std::filesystem::path& folder, const std::string& method);

}  // namespace tessera
