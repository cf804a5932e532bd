#include "comm/posted.h"

#include "comm/communicator.h"
#include "core/error.h"

namespace tessera {
namespace {

void check_posted(int rank, int ranks, int tag, size_t bytes) {
  TS_CHECK(rank >= 0 && rank < ranks, "rank {} of {}", rank, ranks);
  TS_CHECK(tag >= 0 && tag < kPostedTags, "tag {}, expected 0 to {}", tag, kPostedTags - 1);
  TS_CHECK(static_cast<int64_t>(bytes) <= kMostPostedBytes, "{} bytes are posted as one message, at most {} may be",
           bytes, kMostPostedBytes);
}

}  // namespace

void tell_first(std::vector<WrongSize>& wrong) {
  if (wrong.empty()) return;
  const auto [posted, envelope, receives, sent] = wrong.front();
  wrong.erase(wrong.begin());
  throw InternalError(fmt::format("rank {} receives {} bytes from rank {} (tag {}), which sent {}", envelope.to,
                                  receives, envelope.from, envelope.tag, sent));
}

Posted Communicator::post_send(std::span<const std::byte> bytes, int to, int tag) {
  check_posted(to, size(), tag, bytes.size());
  traffic_.posted.add(static_cast<int64_t>(bytes.size()));
  return start_send(bytes, to, tag);
}

Posted Communicator::post_receive(std::span<std::byte> bytes, int from, int tag) {
  check_posted(from, size(), tag, bytes.size());
  return start_receive(bytes, from, tag);
}

}  // namespace tessera
