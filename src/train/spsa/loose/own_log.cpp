#include "train/spsa/loose/own_log.h"

#include <algorithm>

#include "train/spsa/rounds.h"

namespace tessera {
namespace {

ChainTip tip_of(const StepLog& log) { return {log.size(), log.chain().prev()}; }

}  // namespace

OwnLog::OwnLog(const std::filesystem::path& folder, const std::string& header_json)
    : log_(StepLog::create(folder, header_json, {})), tip_(tip_of(log_)) {}

Record OwnLog::decode(const Bytes& bytes) const {
  const auto decoded = decode_record(bytes);
  const auto* record = std::get_if<Record>(&decoded);
  const auto refusal = record ? log_.chain().refuses(*record) : std::get<Refusal>(decoded);
  if (refusal) throw_poisoned(tip_.index, *refusal);
  return *record;
}

void OwnLog::append(const Record& record, const Bytes& bytes, StepLog::Sync sync) {
  log_.append(bytes, sync);
  tip_.advance(bytes);
  if (record.type == RecordType::digest) digest_told_ = record.round;
}

uint64_t OwnLog::follow(const std::vector<Bytes>& theirs) {
  const uint64_t first = log_.first_index(), before = log_.size();
  uint64_t common = first;
  log_.for_each(first, [&](const Record& record, std::span<const std::byte> encoded) {
    const uint64_t at = record.index - first;
    if (at >= theirs.size() || !std::ranges::equal(theirs[at], encoded)) return false;
    common = record.index + 1;
    return true;
  });
  // Where the engine has no other record, it has lost its tail, and this log fills it again.
  if (common == before || common - first == theirs.size()) return 0;
  log_.truncate(common);
  tip_ = tip_of(log_);
  return before - common;
}

}  // namespace tessera
