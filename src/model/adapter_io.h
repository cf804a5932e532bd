#pragma once
// Native adapter folders: the adapter's own parameters (pools, not assembled matrices), so that training can go on.
//
//   <method>.safetensors    every trained slot under its name: "mos.self_attn.q_proj.pool_a", f32
//   adapter.json            format, method's descriptor (numbers, types, layers, hashes of index tables), fingerprint
//   of
//                           the base model, number of parameters, SHA-256 of the file above; written last

#include <filesystem>
#include <string>

#include "model/model.h"

namespace tessera {

/// Writes the model's adapter; the folder is made where it is missing. Each file is replaced atomically and
/// adapter.json comes last: a save that is cut short leaves files whose hash does not match, which `load_adapter`
/// refuses.
/// @throws UserError naming the file that cannot be written
void save_adapter(const std::filesystem::path& folder, Model&);

/// Where the adapter lies that a folder names: the folder, or of a run's the one in it.
std::filesystem::path adapter_folder(const std::filesystem::path&);

/// Reads the adapter's values into the model's pool; the caller then assembles. Everything is checked before the first
/// value is written: method, numbers, types, layers, hashes of the index tables (drawn anew by this run), the base
/// model's fingerprint, the file's hash, names, shapes and dtypes, and that no value is NaN or infinite.
/// A model that is only counted (Memory::counted) is checked against, as far as its base is known, and not written to.
/// @param folder  or the run's that it lies in
/// @param where  what asked for it ("recipe.toml:12:1"), for errors
/// @throws UserError with the saved and this run's value; an assembled LoRA (PEFT's folder) is refused as such
void load_adapter(const std::filesystem::path& folder, Model&, const std::string& where);

}  // namespace tessera
