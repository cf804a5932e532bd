#pragma once
// PEFT's folders, read: LoRA on linear weights.
//
//   adapter_config.json         r, lora_alpha, use_rslora, rank_pattern, alpha_pattern
//   adapter_model.safetensors   base_model.model.<module>.lora_A.weight [r, in] and .lora_B.weight [out, r];
//                               f32, bf16 or f16
//
// y = x Wᵀ + s · (x Aᵀ) Bᵀ with s = lora_alpha / r, or lora_alpha / sqrt(r). What a module's rank and alpha are is
// PEFT's rule: the first pattern, in the order of the file, that the end of the module's path matches, else r and
// lora_alpha. Which modules have deltas the tensors tell.

#include "model/saved_adapter.h"

namespace tessera {

/// As open_adapter, of a folder with adapter_config.json. It names its base by path only: that it fits is seen by its
/// modules and shapes.
/// @throws UserError for what is not a plain LoRA (DoRA, trained biases or modules, starts that change the base)
std::unique_ptr<SavedAdapter> open_peft_adapter(const std::filesystem::path& folder, const std::string& where);

}  // namespace tessera
