#pragma once
// What a machine needs to know of a NATS server to take part in a run, and the names that a run has there:
// docs/nats.md.

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/stop.h"

namespace tessera {

struct NatsSettings {
  std::vector<std::string> servers{"nats://127.0.0.1:4222"};  // tried in this order
  std::string name, node;             // of the run and of this machine: letters, digits, "-" and "_"
  std::filesystem::path credentials;  // two lines, user (the node) and password; empty: a server that asks for none
  // PEM files; empty: no TLS. The certificate and its key are this machine's own, for servers that ask for one.
  std::filesystem::path tls_ca, tls_cert, tls_key;
  /// Compares the header that is at the engine with this one, and throws in the recipe's words; may be empty.
  std::function<void(const std::string& there, const std::string& here)> require_header{};
  /// Whether this process was asked to stop: no answer is waited for much longer than a second then. Called from
  /// another thread, too.
  std::function<bool()> is_asked_to_stop = stop_requested;
  std::chrono::milliseconds patience{5'000};         // for one answer of the server
  std::chrono::milliseconds heartbeat{10'000};       // how often it shows that a subscription lives; renewed behind 2.5
  std::chrono::milliseconds first_patience{60'000};  // until another machine has begun the run, if this one may not
};

/// Whether a run or a node may be called so: letters, digits, "-" and "_".
bool is_engine_name(std::string_view);

/// @throws UserError naming the key: a name with other characters, no server, half of a certificate
void check(const NatsSettings&);

/// The place of a fault in the recipe, from the key's name in its section.
std::string spsa_key(std::string_view key);

/// User and password. @throws UserError when others than its owner may read the file, or it is of another form or
/// another node
struct NatsUser {
  std::string user, password;
};
NatsUser read_credentials(const NatsSettings&);

/// "nats://h:4222" or "tls://h:4222", the port may be missing. @throws UserError
struct NatsAddress {
  std::string host, port;
};
NatsAddress parse_server(const std::string& server);

/// The subjects of a run, and its streams.
struct NatsNames {
  explicit NatsNames(const NatsSettings&);
  std::string log, join, vote, have;  // what this node publishes on
  std::string votes, haves;           // what it subscribes to
  std::string log_stream, join_stream;
  std::string any_join;

  /// NODE of tessera.NAME.KIND.NODE; nothing for any other subject. The server lets a node publish on its own subjects
  /// alone. Messages come on others, too: a consumer that a node makes for itself delivers wherever it wants, but under
  /// the subject that the message was published on. So the subject is looked at, and not where a message came in.
  std::optional<std::string> sender(std::string_view kind, std::string_view subject) const;

 private:
  std::string prefix_;  // "tessera.NAME."
};

}  // namespace tessera
