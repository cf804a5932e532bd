#pragma once
// SHA-256 of bytes as they come, so that what is hashed need not be in memory at once.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "io/files.h"

struct evp_md_ctx_st;

namespace tessera {

/// One hash, by OpenSSL: add the parts in order, then ask once.
class Sha256 {
 public:
  Sha256();
  void add(std::span<const std::byte>);
  std::array<std::byte, 32> digest();
  std::string hex() { return hex_text(digest()); }

 private:
  struct Free {
    void operator()(evp_md_ctx_st*) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

/// A file's hash and size, read once through a buffer.
struct HashedFile {
  std::array<std::byte, 32> sha256{};
  uint64_t bytes = 0;
};
/// @param skip_bytes  leading bytes that do not count
HashedFile hash_file(const std::filesystem::path&, int64_t skip_bytes = 0);

}  // namespace tessera
