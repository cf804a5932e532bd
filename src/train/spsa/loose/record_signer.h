#pragma once
// The bytes of records that this machine packs: signed, where the run's header names who may.

#include <optional>
#include <string>
#include <vector>

#include "steplog/signature.h"

namespace tessera {

class RecordSigner {
 public:
  /// @param key      a private key (PEM), or empty
  /// @param signers  of the run header; empty: records are not signed
  RecordSigner(const std::filesystem::path& key, const std::vector<std::string>& signers, const RunId&);

  /// Whether records of this machine are taken: its key is one of the signers', or none are needed.
  bool may_sign() const { return !is_needed_ || place_; }
  Bytes encode(const Record&) const;

 private:
  RunId run_;
  bool is_needed_;
  std::optional<SigningKey> key_;
  std::optional<uint8_t> place_;
};

}  // namespace tessera
