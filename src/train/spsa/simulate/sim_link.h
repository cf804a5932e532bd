#pragma once
// One direction of a simulated link between a node and the server.
//
//   sent          |== bytes / rate ==|-- latency + jitter · u --|   there
//   next message                     |==========|---------- ...      waits until the link is free
//
// u is uniform in [0, 1), drawn for each message. A core message is lost with the link's chance. One of a stream is
// sent again, 0.2 s later for each time that it was lost, and does not pass those before it; repetitions take no time
// of the link.

#include <optional>

#include "train/spsa/simulate/event_queue.h"

namespace tessera {

struct LinkTerms {
  SimTime latency = 0, jitter = 0;
  double loss = 0, bytes_per_second = 1;
};
constexpr SimTime kRetransmission = kSimSecond / 5;

class SimLink {
 public:
  /// @param key  of its draws
  SimLink(const LinkTerms& terms, uint64_t key) : terms_(terms), key_(key) {}

  /// When a core message of so many bytes, sent now, is at the other end; nothing: it is lost.
  std::optional<SimTime> send(SimTime now, int64_t bytes);
  /// The same of a message of a stream.
  SimTime send_safely(SimTime now, int64_t bytes);

 private:
  SimTime on_its_way(SimTime now, int64_t bytes, uint64_t message);

  LinkTerms terms_;
  uint64_t key_, messages_ = 0;
  SimTime free_at_ = 0, last_of_stream_ = 0;
};

}  // namespace tessera
