#include "io/sha256.h"

#include <openssl/evp.h>

#include <vector>

#include "core/error.h"
#include "io/file_descriptor.h"

namespace tessera {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

}  // namespace

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  TS_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1, "OpenSSL has no SHA-256");
}

void Sha256::add(std::span<const std::byte> bytes) {
  TS_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1, "OpenSSL failed");
}

std::array<std::byte, 32> Sha256::digest() {
  std::array<std::byte, 32> bytes;
  TS_CHECK(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(bytes.data()), nullptr) == 1,
           "OpenSSL failed");
  return bytes;
}

HashedFile hash_file(const std::filesystem::path& path, int64_t skip_bytes) {
  const FileDescriptor file = FileDescriptor::open_to_read(path);
  file.seek(skip_bytes);
  Sha256 hash;
  HashedFile hashed;
  std::vector<std::byte> buffer(kBufferBytes);
  // A short read is the end.
  for (size_t n = buffer.size(); n == buffer.size();) {
    n = file.read(buffer);
    hash.add({buffer.data(), n});
    hashed.bytes += n;
  }
  hashed.sha256 = hash.digest();
  return hashed;
}

std::array<std::byte, 32> sha256(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.add(bytes);
  return hash.digest();
}

std::string sha256_hex(std::span<const std::byte> bytes) { return hex_text(sha256(bytes)); }

std::string sha256_hex(std::string_view text) { return sha256_hex(std::as_bytes(std::span(text))); }

std::string sha256_of_file(const std::filesystem::path& path, int64_t skip_bytes) {
  return hex_text(hash_file(path, skip_bytes).sha256);
}

}  // namespace tessera
