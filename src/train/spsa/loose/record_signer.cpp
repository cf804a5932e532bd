#include "train/spsa/loose/record_signer.h"

#include "core/error.h"

namespace tessera {

RecordSigner::RecordSigner(const std::filesystem::path& key, const std::vector<std::string>& signers, const RunId& run)
    : run_(run), is_needed_(!signers.empty()) {
  if (!is_needed_ || key.empty()) return;
  key_.emplace(SigningKey::read(key));
  for (size_t k = 0; k < signers.size(); ++k)
    if (parse_public_key(signers[k]) == key_->public_key()) place_ = static_cast<uint8_t>(k);
}

Bytes RecordSigner::encode(const Record& record) const {
  TS_CHECK(may_sign(), "a record of a machine whose key is not among the signers'");
  return is_needed_ ? encode_signed(record, run_, *key_, *place_) : tessera::encode(record);
}

}  // namespace tessera
