#pragma once
// JetStream, as far as a run needs it: making a stream, what is in it, appending by compare-and-set, a consumer.
// Every call is a question and its answer; without an answer it throws EngineSilent.

#include <optional>

#include "steplog/nats_connection.h"

struct __jsCtx;

namespace tessera {

class NatsStreams {
 public:
  /// @param connection  must outlive this
  explicit NatsStreams(NatsConnection& connection);
  ~NatsStreams();
  NatsStreams(const NatsStreams&) = delete;

  struct Shape {
    std::string name, subject;
    int64_t messages_of_subject = -1;  // older ones go; -1: none goes
  };
  /// Makes it as docs/nats.md says. One of that name that is there already stays as it is.
  void create(const Shape&);

  struct Contents {
    uint64_t messages = 0, first = 0, last = 0;  // how many are there, the first one's and the last one's sequence
    uint64_t missing() const { return messages == 0 ? 0 : last - first + 1 - messages; }  // from the middle
  };
  /// Nothing when there is no such stream.
  std::optional<Contents> contents(const std::string& stream);

  struct Stored {
    std::string subject;
    Bytes bytes;
  };
  /// Nothing when no message has this sequence.
  std::optional<Stored> message(const std::string& stream, uint64_t sequence);

  /// stored: by this call. duplicate: a message of this id is there, perhaps another one. conflict: the last sequence
  /// is another. silent: no answer, so that any of the three may have happened.
  struct Published {
    enum class Result { stored, duplicate, conflict, silent } result;
    uint64_t sequence = 0;  // of the stored one
    std::string trouble;    // why there is no answer
  };
  /// @param expected  the stream's last sequence; nothing: any
  /// @throws UserError when the server does not let this node publish there
  Published publish(const std::string& subject, std::span<const std::byte> message, std::optional<uint64_t> expected,
                    const std::string& id);

  /// A consumer that delivers to `inbox` what the stream holds from sequence `from` on, in order, and then whatever
  /// comes, with a heartbeat. The server forgets it when nobody listens there. @return how much there is to deliver
  uint64_t follow(const std::string& stream, const std::string& inbox, uint64_t from);

 private:
  NatsConnection& connection_;
  __jsCtx* context_ = nullptr;
};

}  // namespace tessera
