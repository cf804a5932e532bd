#include "comm/mailbox.h"

#include "core/error.h"

namespace tessera {

Posted Mailbox::send(const Envelope& envelope, std::span<const std::byte> bytes) {
  return sends_.emplace_back(Waiting<const std::byte>{Posted{posted_++}, envelope, bytes}).posted;
}

Posted Mailbox::receive(const Envelope& envelope, std::span<std::byte> bytes) {
  return receives_.emplace_back(Waiting<std::byte>{Posted{posted_++}, envelope, bytes}).posted;
}

bool Mailbox::progress(int rank) {
  const size_t before = receives_.size();
  std::erase_if(receives_, [&](const Waiting<std::byte>& mine) {
    if (mine.envelope.to != rank) return false;
    const auto send = std::find_if(sends_.begin(), sends_.end(),
                                   [&](const auto& waiting) { return waiting.envelope == mine.envelope; });
    if (send == sends_.end()) return false;
    if (send->bytes.size() == mine.bytes.size())
      std::copy(send->bytes.begin(), send->bytes.end(), mine.bytes.begin());
    else
      wrong_[rank].push_back({mine.posted, mine.envelope, static_cast<int64_t>(mine.bytes.size()),
                              static_cast<int64_t>(send->bytes.size())});
    sends_.erase(send);
    return true;
  });
  return receives_.size() < before;
}

bool Mailbox::is_done(Posted posted) const {
  TS_CHECK(static_cast<uint64_t>(posted) < posted_, "message {} of {} posted ones", static_cast<uint64_t>(posted),
           posted_);
  return !holds(sends_, posted) && !holds(receives_, posted) &&
         std::none_of(wrong_.begin(), wrong_.end(), [&](const auto& rank) { return holds(rank.second, posted); });
}

}  // namespace tessera
