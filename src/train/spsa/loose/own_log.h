#pragma once
// This machine's own log of a run, which stays true whatever becomes of the engine's: what is read from there goes to
// the disk first, and only then to the weights.

#include <optional>

#include "steplog/log_engine.h"
#include "steplog/step_log.h"
#include "train/spsa/packer.h"

namespace tessera {

class OwnLog {
 public:
  /// Makes the folder with this header, or opens it.
  OwnLog(const std::filesystem::path& folder, const std::string& header_json);

  StepLog& log() { return log_; }
  const StepLog& log() const { return log_; }
  const ChainTip& tip() const { return tip_; }
  bool has_ended() const { return log_.chain().ended(); }
  bool has_digest_of(uint32_t round) const { return digest_told_ == std::optional(round); }

  /// @throws UserError, naming the rule, for a record that every honest replica refuses: the run stops here
  Record decode(const Bytes&) const;
  /// Appends what decode() let pass. @throws UserError when the disk does not take it; nothing is appended then
  void append(const Record&, const Bytes&, StepLog::Sync);

  /// Takes the engine's chain where this log differs from it: cuts it back to the last record that both have.
  /// @param theirs  records of the engine from number `first_index()` of this log on
  /// @return how many records were cut off
  uint64_t follow(const std::vector<Bytes>& theirs);

 private:
  StepLog log_;
  ChainTip tip_;
  std::optional<uint32_t> digest_told_;  // round of the last DIGEST
};

}  // namespace tessera
