// The seal is written last, into the block that was left free for it. A file whose writing was interrupted has none;
// one that was cut or altered has one that does not match.

#include "io/seal.h"

#include <charconv>
#include <span>
#include <string_view>

#include "core/error.h"
#include "io/file_descriptor.h"
#include "io/files.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kMagic = "tessera sealed file, version 1\nsha256 ";
constexpr std::string_view kSizeLabel = "\nbytes ";
constexpr std::string_view kHdf5Signature{"\x89HDF\r\n\x1a\n", 8};
constexpr size_t kDigestDigits = 64;
constexpr const char* kDamagedHint = "take another copy, or make the file again";

std::string render(const Seal& seal) {
  std::string block = fmt::format("{}{}{}{}\n", kMagic, seal.sha256, kSizeLabel, seal.bytes);
  block.resize(kUserBlockBytes, '\0');
  return block;
}

}  // namespace

void write_seal(const fs::path& path) {
  const FileDescriptor file = FileDescriptor::open_to_change(path);
  // The block itself does not count, as it holds the result.
  const std::string block = render({sha256_of_file(path, kUserBlockBytes), file.size()});
  file.write(std::as_bytes(std::span(block)));
  file.sync();
}

Seal read_seal(const fs::path& path) {
  const FileDescriptor file = FileDescriptor::open_to_read(path);
  std::string start(kUserBlockBytes + kHdf5Signature.size(), '\0');
  start.resize(file.read(std::as_writable_bytes(std::span(start))));
  const std::string block = start.substr(0, kUserBlockBytes);
  // A file that was closed and never sealed has zeros in its user block, and the signature of HDF5 behind it.
  if (!block.starts_with(kMagic)) {
    const bool is_hdf5 = start.starts_with(kHdf5Signature) || start.substr(block.size()) == kHdf5Signature;
    if (!is_hdf5) throw UserError(path.string(), "not an HDF5 file");
    throw UserError(path.string(), "not sealed: its writing was interrupted, or another program made it", kDamagedHint);
  }
  if (block.size() < kUserBlockBytes)
    throw UserError(path.string(), fmt::format("has {} bytes, fewer than its seal: it was cut short", block.size()),
                    kDamagedHint);
  Seal seal;
  // Fields stand at fixed places, since the digest has always 64 digits.
  const size_t size_begin = kMagic.size() + kDigestDigits + kSizeLabel.size();
  seal.sha256 = block.substr(kMagic.size(), kDigestDigits);
  std::from_chars(block.data() + size_begin, block.data() + block.size(), seal.bytes);
  // Rendering it again compares every byte, the padding included.
  if (block != render(seal)) throw UserError(path.string(), "its seal is damaged", kDamagedHint);
  if (seal.bytes != file.size())
    throw UserError(path.string(), fmt::format("has {} bytes, its seal says {}", file.size(), seal.bytes),
                    kDamagedHint);
  return seal;
}

void require_sealed_contents(const fs::path& path, const Seal& seal) {
  if (sha256_of_file(path, kUserBlockBytes) != seal.sha256)
    throw UserError(path.string(), "does not match its seal: the file was altered or damaged", kDamagedHint);
}

}  // namespace tessera
