#pragma once
// One connection to a NATS server, which mends itself, and what is published and heard on it. The library's own threads
// hand messages to a handler; all else is called from one thread. The library's header stays in the .cpp files.

#include <functional>
#include <memory>
#include <stdexcept>

#include "steplog/nats_hurry.h"
#include "steplog/nats_settings.h"
#include "steplog/record.h"

struct __natsConnection;

namespace tessera {

/// The server gave no answer, or the connection went: asking later may help.
class EngineSilent : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The library's words for the last error of this thread, without its own file and line.
std::string nats_words(int status);

struct NatsMessage {
  std::string subject, reply;
  Bytes bytes;
  // Of the server's own messages on a consumer's subject: "100", what it wants ("FlowControl Request", "Idle
  // Heartbeat"), the consumer's last number, and where to say that a stalled one may go on.
  std::string status, description, last_consumer, stalled;
};

class NatsConnection {
 public:
  using Handler = std::function<void(NatsMessage)>;  // called from other threads
  /// @param changed  called from other threads when the connection goes or comes back
  /// @throws UserError when no server answers, or it refuses this node or its certificate
  NatsConnection(const NatsSettings&, std::function<void()> changed);
  ~NatsConnection();
  NatsConnection(const NatsConnection&) = delete;

  bool connected() const;
  /// How many connections were made, the first one included.
  int64_t connections() const;
  /// @throws UserError when the connection is given up: the server refuses this node when it comes back. One that was
  /// ended because of a stop throws nothing; it does not come back
  void check_open() const;

  /// Sends at once, or loses it. @return whether there was a connection
  bool publish(const std::string& subject, std::span<const std::byte> message);
  /// A subject that only this connection hears.
  std::string new_inbox() const;

  /// Ends with its life. A handler may still run for a moment behind that, and is kept until then.
  class Subscription {
   public:
    Subscription() = default;
    explicit Subscription(std::shared_ptr<void> handle) : handle_(std::move(handle)) {}

   private:
    std::shared_ptr<void> handle_;
  };
  Subscription subscribe(const std::string& subject, Handler);

  /// What the server has refused last on this connection and names `subject`: "Permissions Violation for Publish to
  /// ..."; empty when it was something else, or nothing. Waits until the server has seen all that was sent before.
  /// @throws EngineSilent
  std::string refusal_of(const std::string& subject) const;

  /// Around each call of the library that waits for an answer.
  NatsHurry::Wait waiting() const;
  __natsConnection* handle() const;
  const NatsSettings& settings() const { return settings_; }

 private:
  struct State;
  NatsSettings settings_;
  std::unique_ptr<State> state_;
};

}  // namespace tessera
