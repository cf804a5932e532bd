// Ed25519 takes the message whole, so OpenSSL's one-shot calls are used: EVP_DigestSign and EVP_DigestVerify without a
// digest of their own.

#include "steplog/signature.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>

#include "core/error.h"
#include "core/hex.h"
#include "io/files.h"
#include "steplog/wire.h"

namespace tessera {
namespace {

constexpr std::string_view kPurpose = "tessera record 1";  // a signature for anything else is none of a record

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using DigestContext = std::unique_ptr<EVP_MD_CTX, FreeContext>;

const unsigned char* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}

DigestContext make_context() {
  DigestContext context(EVP_MD_CTX_new());
  TS_CHECK(context, "OpenSSL has no memory");
  return context;
}

/// OpenSSL would ask on the terminal: a job has none.
int no_password(char*, int, int, void*) { return -1; }

/// @param encoded  a signed record
Bytes message_of(const RunId& run, std::span<const std::byte> encoded) {
  ByteWriter writer;
  writer.put(std::as_bytes(std::span(kPurpose)));
  writer.put(std::span<const std::byte>(run.sha256));
  writer.put(encoded.first(encoded.size() - kSignatureBytes));
  return writer.take();
}

}  // namespace

PublicKey parse_public_key(const std::string& text) {
  PublicKey key;
  // One spelling of a key, so that the header's text and its hash follow from the keys.
  const auto bytes = bytes_of_hex(text);
  if (!bytes || bytes->size() != key.size())
    throw UserError("", fmt::format("\"{}\" is no public key: 64 hexadecimal digits in lower case are expected", text));
  std::ranges::copy(*bytes, key.begin());
  return key;
}

void SigningKey::Free::operator()(evp_pkey_st* key) const { EVP_PKEY_free(key); }

SigningKey::SigningKey(std::unique_ptr<evp_pkey_st, Free> key) : key_(std::move(key)) {
  size_t bytes = public_key_.size();
  TS_CHECK(EVP_PKEY_get_raw_public_key(key_.get(), reinterpret_cast<unsigned char*>(public_key_.data()), &bytes) == 1 &&
               bytes == public_key_.size(),
           "OpenSSL has no public key of {} bytes", public_key_.size());
}

SigningKey SigningKey::of_seed(std::span<const std::byte, 32> seed) {
  std::unique_ptr<evp_pkey_st, Free> key(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, raw(seed), seed.size()));
  TS_CHECK(key, "OpenSSL has no Ed25519");
  return SigningKey(std::move(key));
}

SigningKey SigningKey::read(const std::filesystem::path& pem) {
  const std::string text = read_text_file(pem);
  const std::unique_ptr<BIO, FreeBio> bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  TS_CHECK(bio, "OpenSSL has no memory");
  std::unique_ptr<evp_pkey_st, Free> key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  ERR_clear_error();  // what stays in OpenSSL's list would be taken for an error of the next connection
  if (!key || EVP_PKEY_get_id(key.get()) != EVP_PKEY_ED25519)
    throw UserError(pem.string(), key ? "the private key is no Ed25519 key" : "holds no private key that can be read",
                    "make one without a password: openssl genpkey -algorithm ed25519 -out KEY.pem");
  return SigningKey(std::move(key));
}

SignatureBytes SigningKey::sign(std::span<const std::byte> message) const {
  const DigestContext context = make_context();
  SignatureBytes signature;
  size_t bytes = signature.size();
  TS_CHECK(EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get()) == 1 &&
               EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &bytes, raw(message),
                              message.size()) == 1 &&
               bytes == signature.size(),
           "OpenSSL failed to sign");
  return signature;
}

bool is_signature_of(const PublicKey& key, std::span<const std::byte> message, const SignatureBytes& signature) {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> pkey(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw(key), key.size()), EVP_PKEY_free);
  TS_CHECK(pkey, "OpenSSL has no Ed25519");
  const DigestContext context = make_context();
  TS_CHECK(EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, pkey.get()) == 1, "OpenSSL failed");
  const bool is_right =
      EVP_DigestVerify(context.get(), raw(signature), signature.size(), raw(message), message.size()) == 1;
  ERR_clear_error();
  return is_right;
}

Bytes encode_signed(Record record, const RunId& run, const SigningKey& key, uint8_t place) {
  record.flags |= kIsSigned;
  record.signature = Signature{place, {}};
  Bytes encoded = encode(record);
  const SignatureBytes signature = key.sign(message_of(run, encoded));
  std::ranges::copy(signature, encoded.end() - static_cast<int64_t>(signature.size()));
  return encoded;
}

bool is_signed_by(const PublicKey& key, const RunId& run, const Record& record) {
  // What was decoded encodes to the same bytes again.
  return record.signature && is_signature_of(key, message_of(run, encode(record)), record.signature->bytes);
}

}  // namespace tessera
