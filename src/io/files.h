#pragma once
// Whole files: read, written atomically, hashed.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

/// @throws UserError naming the file
std::string read_text_file(const std::filesystem::path&);

/// A name for a temporary beside `file`, ".<name>.tmp-<16 hex digits>": random, so that no other process takes it, on
/// this host or on another. A long name is cut where the temporary's would be longer than a file system takes.
std::filesystem::path temporary_beside(const std::filesystem::path& file);

/// Makes a temporary file in the same folder (temporary_beside) that is this call's alone, `write(temporary)`, fsync,
/// rename over `file`, fsync of the folder: a reader sees the old file or the whole new one, also when several
/// processes write it at once. The temporary is removed when `write` throws;
/// only a killed process leaves one (see remove_temporaries). The folder must exist.
/// @throws UserError naming `file` on a full disk and the like; those of `write` about `temporary` name `file` too
void write_file_atomically(const std::filesystem::path& file,
                           const std::function<void(const std::filesystem::path& temporary)>& write);
void write_text_file(const std::filesystem::path& file, std::string_view text);  // atomically

/// Makes the folder and its parents where they are missing. @throws UserError naming it
void create_folder(const std::filesystem::path&);

/// The entries of a folder (names made, renamed, removed) are on the disk only after this. Some network file systems
/// cannot sync a folder; there they are as durable as those make them.
void sync_folder(const std::filesystem::path&);

/// Removes the temporaries, files and folders, that killed processes left in `folder`; for a folder that nobody else
/// writes to at the moment.
void remove_temporaries(const std::filesystem::path& folder);

std::array<std::byte, 32> sha256(std::span<const std::byte>);  // OpenSSL
/// Two hex digits a byte.
std::string hex_text(std::span<const std::byte>);
/// SHA-256 as 64 hex digits.
std::string sha256_hex(std::span<const std::byte>);
std::string sha256_hex(std::string_view);
/// @param skip_bytes  leading bytes that do not count
std::string sha256_of_file(const std::filesystem::path&, int64_t skip_bytes = 0);

}  // namespace tessera
