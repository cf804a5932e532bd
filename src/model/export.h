#pragma once
// What other programs read: an ordinary LoRA adapter for PEFT, or a dense Hugging Face model.

#include <filesystem>

#include "model/model.h"

namespace tessera {

/// Writes the assembled A and B of every adapted weight as PEFT does: adapter_model.safetensors (f32, A [r, in], B
/// [out, r]) and adapter_config.json. The sharing is lost with the pools: such a folder cannot be trained on as MoS.
/// Reads the assembled matrices: call Model::assemble after the last change of the pool, as ever.
/// The folder is replaced as a whole, but for files of others that hold no weights.
/// @throws UserError naming the file that cannot be written
void export_peft(const std::filesystem::path& folder, Model&);

/// Bytes that export_peft takes.
int64_t plan_peft_bytes(Model&);

/// @throws UserError when `folder` is the base model's own, which an export would overwrite
void refuse_own_folder(const std::filesystem::path& folder, const std::filesystem::path& base);

/// @throws UserError when a folder that an export would replace holds weights or an adapter that no export wrote
void refuse_foreign_model(const std::filesystem::path& folder);
void refuse_foreign_peft(const std::filesystem::path& folder);

/// Writes a dense model: every stored tensor once, W = W0 + scale · B·A formed in f32 and cast to
/// Model::export_dtype(); config.json is the source's with the new dtype; the tokenizer's files and
/// generation_config.json are copied; tessera.json holds the hashes of all (sealed_folder.h). The model itself keeps
/// its W0. The folder is replaced as a whole, but for files of others that hold no weights.
/// @return whether the folder holds the model's own numbers bit for bit: no delta was added and none was rounded
/// @throws UserError when `folder` is the base model's own, a file cannot be written, or a weight does not fit the
/// dtype
/// @throws Stopped between two tensors when a stop was asked for; there is no new model.safetensors then
bool export_merged(const std::filesystem::path& folder, Model&, const std::filesystem::path& tokenizer_folder,
                   const Context&);

/// Bytes that export_merged takes.
int64_t plan_merged_bytes(Model&);

}  // namespace tessera
