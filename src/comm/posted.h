#pragma once
// Posted messages: sends and receives that go on while a rank computes. What every kind of communicator needs of them.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tessera {

/// Names one posted send or receive of one communicator.
enum class Posted : uint64_t {};

/// A message goes to the receive that was posted first with the same three; messages with the same three stay in order.
struct Envelope {
  int from = 0, to = 0, tag = 0;
  friend bool operator==(const Envelope&, const Envelope&) = default;
};

constexpr int64_t kMostPostedBytes = 1 << 30;  // MPI counts bytes in an int: longer messages are posted in pieces
constexpr int kPostedTags = 1 << 14;           // MPI promises 32767

/// A receive that has got another number of bytes than it asked for.
struct WrongSize {
  Posted posted;
  Envelope envelope;
  int64_t receives, sent;
};

/// Takes the first fault out. @throws InternalError that names it; nothing when there is none
void tell_first(std::vector<WrongSize>&);

/// Whether one of these is of this name.
template <class Message> bool holds(const std::vector<Message>& messages, Posted posted) {
  return std::any_of(messages.begin(), messages.end(), [&](const Message& m) { return m.posted == posted; });
}

}  // namespace tessera
