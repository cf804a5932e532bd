#pragma once
// Hugging Face folders that this program writes hold the hashes of their files,
// so that an altered one is not read unnoticed.

#include <filesystem>

namespace tessera {

constexpr const char* kSealFile = "tessera.json";

/// Hashes every file of the folder into its seal: the last to be written.
void seal_folder(const std::filesystem::path&);

/// Reads and hashes the files of a folder that has a seal; a folder without one is taken as it is.
/// @throws UserError naming the first file that is missing or altered
void require_seal(const std::filesystem::path&);

}  // namespace tessera
