#pragma once
// Ed25519 signatures of records (RFC 8032, by OpenSSL): who packed a record, for runs whose header names the keys.

#include <filesystem>
#include <memory>

#include "steplog/record.h"

struct evp_pkey_st;

namespace tessera {

using PublicKey = std::array<std::byte, 32>;
using SignatureBytes = std::array<std::byte, 64>;

/// The 64 hexadecimal digits, in lower case, that stand for a key in the run header.
/// @throws UserError without a place when they are something else
PublicKey parse_public_key(const std::string& text);

/// A private key.
class SigningKey {
 public:
  /// As `openssl genpkey -algorithm ed25519` writes it (PKCS #8 in PEM, without a password).
  /// @throws UserError naming the file when it is something else
  static SigningKey read(const std::filesystem::path& pem);
  /// Of the 32 bytes that RFC 8032 calls the private key.
  static SigningKey of_seed(std::span<const std::byte, 32> seed);

  const PublicKey& public_key() const { return public_key_; }
  /// Of one key and one message there is one signature.
  SignatureBytes sign(std::span<const std::byte> message) const;

 private:
  struct Free {
    void operator()(evp_pkey_st*) const;
  };
  explicit SigningKey(std::unique_ptr<evp_pkey_st, Free> key);
  std::unique_ptr<evp_pkey_st, Free> key_;
  PublicKey public_key_{};
};

bool is_signature_of(const PublicKey&, std::span<const std::byte> message, const SignatureBytes&);

/// The record, flagged and signed: its bytes. What is signed is
///   16 bytes "tessera record 1" | 32 bytes SHA-256 of the run header | the record up to and with its CRC
/// @param place  of the key in the header's list of signers; it is in the bytes, and not in what is signed
Bytes encode_signed(Record, const RunId&, const SigningKey&, uint8_t place);
/// Whether the record's signature is that key's, over this run and everything else that the record says.
bool is_signed_by(const PublicKey&, const RunId&, const Record&);

}  // namespace tessera
