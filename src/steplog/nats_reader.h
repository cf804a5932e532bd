#pragma once
// Reads a stream in the order of its sequences and without a gap of its own: whatever a connection loses on the way is
// asked for again, from behind the last message that came.

#include <chrono>
#include <optional>

#include "steplog/nats_streams.h"

namespace tessera {

class NatsReader {
 public:
  using Clock = std::chrono::steady_clock;
  /// Called from other threads. @param subscription  to be handed back to take()
  using Arrived = std::function<void(int64_t subscription, NatsMessage)>;

  NatsReader(NatsConnection& connection, NatsStreams& streams, std::string stream, Arrived arrived)
      : connection_(connection), streams_(streams), stream_(std::move(stream)), arrived_(std::move(arrived)) {}

  /// Begins anew with sequence `from`. @throws EngineSilent, and then it is lost() still
  /// @param last  the stream's last sequence now
  void start(uint64_t from, uint64_t last);

  /// The sequence of a message of the stream; nothing for the server's own, which are answered here, and for what came
  /// too late or in front of its turn.
  /// @param came  when it arrived
  std::optional<uint64_t> take(int64_t subscription, const NatsMessage&, Clock::time_point came);

  /// Messages are missing on the way, or nothing was heard for two and a half heartbeats: time to start() again.
  bool lost(Clock::time_point now) const;
  void lose() { lost_ = true; }
  /// All that was there at start() has come.
  bool complete() const { return complete_; }
  uint64_t last_sequence() const { return last_sequence_; }

 private:
  void answer(const NatsMessage&);

  NatsConnection& connection_;
  NatsStreams& streams_;
  std::string stream_;
  Arrived arrived_;
  NatsConnection::Subscription subscription_;
  int64_t number_ = 0;  // of the subscription: what an older one still delivers does not count
  uint64_t last_sequence_ = 0, last_delivery_ = 0;
  uint64_t goal_ = 0;  // complete when this sequence was seen
  bool lost_ = true, complete_ = false;
  Clock::time_point heard_{};
};

/// What the server writes into a delivered message's reply subject:
///   $JS.ACK.<stream>.<consumer>.<tries>.<sequence>.<number of the delivery>.<time>.<pending>
/// or the same with a domain and an account in front of the stream, and one more token behind.
struct DeliveryNumbers {
  uint64_t sequence, delivery, pending;  // pending: how many are there behind this one
};
std::optional<DeliveryNumbers> parse_delivery(const std::string& reply);

}  // namespace tessera
