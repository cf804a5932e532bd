#include "steplog/stream_records.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

uint64_t index_of(uint64_t sequence, std::span<const std::byte> message) {
  const auto decoded = decode_record(message);
  if (const auto* refusal = std::get_if<Refusal>(&decoded))
    throw UserError("the engine's log",
                    fmt::format("message {} is no record ({}: {})", sequence, refusal->rule, refusal->detail),
                    "who packs has gone astray, or the engine's disk has; the machines' own logs are good up to here");
  return std::get<Record>(decoded).index;
}

}  // namespace

void StreamRecords::skip(uint64_t sequence) { last_sequence_ = std::max(last_sequence_, sequence); }

void StreamRecords::take(uint64_t sequence, std::span<const std::byte> message) {
  if (sequence <= last_sequence_) return;
  const uint64_t index = index_of(sequence, message);
  last_sequence_ = sequence;
  last_taken_ = Taken{sequence, chain_hash(message)};
  if (const auto same = holds(index, message)) {
    if (!*same && !fork_) fork_ = index;
    return;
  }
  Bytes record(message.begin(), message.end());
  if (index > next_) {
    ahead_.emplace(index, std::move(record));
    return;
  }
  follow(std::move(record));
  // What waited for this one.
  for (auto first = ahead_.begin(); first != ahead_.end() && first->first == next_; first = ahead_.erase(first))
    follow(std::move(first->second));
}

void StreamRecords::follow(Bytes record) {
  hashes_.push_back(chain_hash(record));
  kept_.push_back(std::move(record));
  ++next_;
}

std::optional<bool> StreamRecords::holds(uint64_t index, std::span<const std::byte> record) const {
  if (index < next_) return hashes_[index] == chain_hash(record);
  const auto found = ahead_.find(index);
  if (found == ahead_.end()) return std::nullopt;
  return std::equal(record.begin(), record.end(), found->second.begin(), found->second.end());
}

std::vector<Bytes> StreamRecords::read(uint64_t from) {
  if (from < first_kept() || from > next_) return {};
  kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(from - first_kept()));
  return {kept_.begin(), kept_.end()};
}

}  // namespace tessera
