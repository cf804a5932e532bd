#pragma once
// The seal of an HDF5 file, in the user block in front of it: what the file held when it was finished.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace tessera {

// A sealed file:   | user block: 512 bytes | HDF5: superblock, groups, datasets ... |
//                    the seal, text padded    what the seal's SHA-256 covers
//                    with zeros
constexpr size_t kUserBlockBytes = 512;

struct Seal {
  std::string sha256;  // hex, of bytes [512, end)
  int64_t bytes = 0;   // of the whole file
};

/// Seals a file that was written whole and is closed, and syncs it to disk.
void write_seal(const std::filesystem::path&);

/// The seal as it stands in the file, well-formed and of the file's length; the digest is not yet compared.
/// @throws UserError naming the file: not HDF5, no seal, a damaged one, or one of another length
Seal read_seal(const std::filesystem::path&);

/// Reads and hashes the whole file. @throws UserError naming it when it does not match
void require_sealed_contents(const std::filesystem::path&, const Seal&);

}  // namespace tessera
