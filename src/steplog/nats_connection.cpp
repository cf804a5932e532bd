#include "steplog/nats_connection.h"

#include <fcntl.h>
#include <nats/nats.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace tessera {
namespace {

// A peer that does not answer two of these is gone: a partition shows itself so, as no packet does.
constexpr int64_t kPingMs = 10'000;
// Between two tries to connect again: doubled from the first to the last.
constexpr int64_t kFirstPauseMs = 100, kLastPauseMs = 10'000;

struct FreeOptions {
  void operator()(natsOptions* options) const { natsOptions_Destroy(options); }
};
struct FreeMessage {
  void operator()(natsMsg* message) const { natsMsg_Destroy(message); }
};
struct FreeStatistics {
  void operator()(natsStatistics* statistics) const { natsStatistics_Destroy(statistics); }
};
using Options = std::unique_ptr<natsOptions, FreeOptions>;
using Statistics = std::unique_ptr<natsStatistics, FreeStatistics>;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

/// Options are few and made once: what one of them refuses is the user's value.
void require(natsStatus status, std::string_view key, const std::string& what) {
  if (status != NATS_OK) throw UserError(spsa_key(key), fmt::format("{}: {}", what, lower(nats_words(status))), "");
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

/// Whether a connection can be made to one address, and why not. At most two seconds.
std::string why_no_connection(const addrinfo& address) {
  const int socket = ::socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket < 0) return std::strerror(errno);
  int error = ::connect(socket, address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd ready{.fd = socket, .events = POLLOUT, .revents = 0};
    socklen_t size = sizeof error;
    if (::poll(&ready, 1, 2000) != 1)
      error = ETIMEDOUT;
    else
      ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
  }
  ::close(socket);
  return error == 0 ? "it is no NATS server, or is busy" : lower(std::strerror(error));
}

/// The library says "no server available" whatever the reason was.
std::string why_silent(const std::string& server) {
  const NatsAddress address = parse_server(server);
  const addrinfo hints{.ai_flags = 0,
                       .ai_family = AF_UNSPEC,
                       .ai_socktype = SOCK_STREAM,
                       .ai_protocol = 0,
                       .ai_addrlen = 0,
                       .ai_addr = nullptr,
                       .ai_canonname = nullptr,
                       .ai_next = nullptr};
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found); error != 0)
    return lower(::gai_strerror(error));
  const std::unique_ptr<addrinfo, FreeAddresses> list(found);
  return why_no_connection(*list);
}

[[noreturn]] void fail_silent(const NatsSettings& settings) {
  std::string all;
  for (const std::string& server : settings.servers)
    all += fmt::format("{}{} does not answer ({})", all.empty() ? "" : ", ", server, why_silent(server));
  throw UserError(spsa_key("server"), all, "scripts/start_nats starts one");
}

[[noreturn]] void fail_refused(const NatsSettings& settings, const std::string& why) {
  throw UserError(spsa_key("credentials"), fmt::format("the engine refuses node \"{}\" ({})", settings.node, why),
                  "take the files that scripts/start_nats has written for this node and this server");
}

[[noreturn]] void fail_to_connect(const NatsSettings& settings, natsStatus status) {
  const bool tls = !settings.tls_ca.empty();
  const std::string why = lower(nats_words(status));
  if (status == NATS_CONNECTION_AUTH_FAILED) fail_refused(settings, "authorization violation");
  // The server checks a certificate behind the handshake and hangs up without a word.
  if (tls && (status == NATS_IO_ERROR || status == NATS_PROTOCOL_ERROR))
    fail_refused(settings, settings.tls_cert.empty() ? "it asks for a certificate" : "certificate not accepted");
  if (status == NATS_SSL_ERROR)
    throw UserError(spsa_key("tls_ca"), fmt::format("the server's certificate is not trusted ({})", why),
                    tls ? "take the ca.pem of this server, and the name that stands in its certificate"
                        : "the server speaks TLS: give the ca.pem of its authority");
  if (status == NATS_SECURE_CONNECTION_WANTED)
    throw UserError(spsa_key("tls_ca"), "is given, and the server speaks no TLS",
                    "start it with --tls, or leave out the certificates");
  if (status == NATS_NO_SERVER || status == NATS_TIMEOUT || status == NATS_IO_ERROR) fail_silent(settings);
  throw UserError(spsa_key("server"), fmt::format("cannot connect: {}", why), "");
}

std::string header_of(natsMsg* message, const char* key) {
  const char* value = nullptr;
  return natsMsgHeader_Get(message, key, &value) == NATS_OK && value ? value : "";
}

NatsMessage taken(natsMsg* message) {
  NatsMessage result;
  result.subject = natsMsg_GetSubject(message);
  if (const char* reply = natsMsg_GetReply(message)) result.reply = reply;
  const auto* data = reinterpret_cast<const std::byte*>(natsMsg_GetData(message));
  result.bytes.assign(data, data + natsMsg_GetDataLength(message));
  result.status = header_of(message, "Status");
  if (result.status.empty()) return result;
  result.description = header_of(message, "Description");
  result.last_consumer = header_of(message, "Nats-Last-Consumer");
  result.stalled = header_of(message, "Nats-Consumer-Stalled");
  return result;
}

/// What the library's threads need. It lives until the library says that it has called for the last time.
struct Callbacks {
  std::function<void()> changed;
};
using SharedCallbacks = std::shared_ptr<Callbacks>;

Callbacks& callbacks_of(void* closure) { return **static_cast<SharedCallbacks*>(closure); }

void on_change(natsConnection*, void* closure) { callbacks_of(closure).changed(); }

void on_closed(natsConnection*, void* closure) {
  callbacks_of(closure).changed();
  // The last call of all.
  const std::unique_ptr<SharedCallbacks> end(static_cast<SharedCallbacks*>(closure));
}

void on_error(natsConnection*, natsSubscription*, natsStatus, void*) {}  // asked for where it matters; never printed

int64_t pause_before(natsConnection*, int attempts, void*) {
  return std::min(kFirstPauseMs << std::clamp(attempts - 1, 0, 10), kLastPauseMs);
}

void set_tls(natsOptions* options, const NatsSettings& settings) {
  if (settings.tls_ca.empty()) return;
  require(natsOptions_SetSecure(options, true), "tls_ca", "this libnats has no TLS");
  require(natsOptions_LoadCATrustedCertificates(options, settings.tls_ca.c_str()), "tls_ca", settings.tls_ca.string());
  if (!settings.tls_cert.empty())
    require(natsOptions_LoadCertificatesChain(options, settings.tls_cert.c_str(), settings.tls_key.c_str()), "tls_cert",
            settings.tls_cert.string());
  // The library compares one name with the certificates of all servers. Where they have several, it is the authority
  // alone that is checked, and that the certificate is a server's.
  const std::string host = parse_server(settings.servers.front()).host;
  if (std::all_of(settings.servers.begin(), settings.servers.end(),
                  [&](const std::string& server) { return parse_server(server).host == host; }))
    require(natsOptions_SetExpectedHostname(options, host.c_str()), "server", host);
}

void set_servers(natsOptions* options, const NatsSettings& settings) {
  std::vector<const char*> servers;
  for (const std::string& server : settings.servers) servers.push_back(server.c_str());
  require(natsOptions_SetServers(options, servers.data(), static_cast<int>(servers.size())), "server",
          "cannot be used");
  natsOptions_SetNoRandomize(options, true);
  natsOptions_SetIgnoreDiscoveredServers(options, true);  // the recipe says where to go
  if (settings.credentials.empty()) return;
  const NatsUser user = read_credentials(settings);
  require(natsOptions_SetUserInfo(options, user.user.c_str(), user.password.c_str()), "credentials", "cannot be used");
}

Options make_options(const NatsSettings& settings, SharedCallbacks* callbacks) {
  natsOptions* made = nullptr;
  require(natsOptions_Create(&made), "transport", "libnats");
  Options options(made);
  set_servers(made, settings);
  set_tls(made, settings);
  natsOptions_SetName(made, settings.node.c_str());
  natsOptions_SetTimeout(made, settings.patience.count());
  natsOptions_SetWriteDeadline(made, settings.patience.count());  // of a peer that is gone and has not said so
  natsOptions_SetPingInterval(made, kPingMs);
  natsOptions_SetMaxReconnect(made, -1);
  natsOptions_SetCustomReconnectDelay(made, pause_before, nullptr);
  natsOptions_SetFailRequestsOnDisconnect(made, true);
  natsOptions_SetSendAsap(made, true);  // a vote is small, and waits for nothing
  natsOptions_SetErrorHandler(made, on_error, nullptr);
  natsOptions_SetDisconnectedCB(made, on_change, callbacks);
  natsOptions_SetReconnectedCB(made, on_change, callbacks);
  natsOptions_SetClosedCB(made, on_closed, callbacks);
  return options;
}

void hand_over(natsConnection*, natsSubscription*, natsMsg* message, void* closure) {
  const std::unique_ptr<natsMsg, FreeMessage> end(message);
  (**static_cast<std::shared_ptr<NatsConnection::Handler>*>(closure))(taken(message));
}

void forget_handler(void* closure) {
  const std::unique_ptr<std::shared_ptr<NatsConnection::Handler>> end(
      static_cast<std::shared_ptr<NatsConnection::Handler>*>(closure));
}

}  // namespace

std::string nats_words(int status) {
  const char* text = nats_GetLastError(nullptr);
  const std::string all = text && *text ? text : natsStatus_GetText(static_cast<natsStatus>(status));
  const size_t place = all.starts_with('(') ? all.find("): ") : std::string::npos;
  return place == std::string::npos ? all : all.substr(place + 3);
}

struct NatsConnection::State {
  SharedCallbacks callbacks = std::make_shared<Callbacks>();
  natsConnection* connection = nullptr;
  std::optional<NatsHurry> hurry;
  ~State() {
    hurry.reset();  // before what it would close
    natsConnection_Destroy(connection);
  }
};

NatsConnection::NatsConnection(const NatsSettings& settings, std::function<void()> changed)
    : settings_(settings), state_(std::make_unique<State>()) {
  check(settings);
  state_->callbacks->changed = std::move(changed);
  auto closure = std::make_unique<SharedCallbacks>(state_->callbacks);
  const Options options = make_options(settings, closure.get());
  if (const natsStatus status = natsConnection_Connect(&state_->connection, options.get()); status != NATS_OK)
    fail_to_connect(settings, status);
  (void)closure.release();  // on_closed has it now
  state_->hurry.emplace(settings.is_asked_to_stop, [this] { natsConnection_Close(state_->connection); });
}

NatsConnection::~NatsConnection() = default;

NatsHurry::Wait NatsConnection::waiting() const { return NatsHurry::Wait(*state_->hurry); }

__natsConnection* NatsConnection::handle() const { return state_->connection; }

bool NatsConnection::connected() const {
  return natsConnection_Status(state_->connection) == NATS_CONN_STATUS_CONNECTED;
}

int64_t NatsConnection::connections() const {
  // The library's own count changes together with its state; a callback would come a moment later.
  natsStatistics* made = nullptr;
  natsStatistics_Create(&made);
  const Statistics counts(made);
  uint64_t reconnects = 0;
  if (natsConnection_GetStats(state_->connection, counts.get()) == NATS_OK)
    natsStatistics_GetCounts(counts.get(), nullptr, nullptr, nullptr, nullptr, &reconnects);
  return 1 + static_cast<int64_t>(reconnects);
}

void NatsConnection::check_open() const {
  if (!natsConnection_IsClosed(state_->connection) || state_->hurry->has_cut()) return;
  const char* text = nullptr;
  const natsStatus status = natsConnection_GetLastError(state_->connection, &text);
  if (status == NATS_CONNECTION_AUTH_FAILED) fail_refused(settings_, "authorization violation");
  throw UserError(spsa_key("server"), fmt::format("the connection is closed ({})", lower(text ? text : "no reason")),
                  "");
}

bool NatsConnection::publish(const std::string& subject, std::span<const std::byte> message) {
  const auto wait = waiting();
  // The library would keep it and send it when the server is back, late and all at once.
  return connected() && natsConnection_Publish(state_->connection, subject.c_str(), message.data(),
                                               static_cast<int>(message.size())) == NATS_OK;
}

std::string NatsConnection::new_inbox() const {
  natsInbox* made = nullptr;
  if (natsInbox_Create(&made) != NATS_OK) throw EngineSilent("no inbox");
  std::string inbox = made;
  natsInbox_Destroy(made);
  return inbox;
}

NatsConnection::Subscription NatsConnection::subscribe(const std::string& subject, Handler handler) {
  auto closure = std::make_unique<std::shared_ptr<Handler>>(std::make_shared<Handler>(std::move(handler)));
  natsSubscription* made = nullptr;
  const natsStatus status =
      natsConnection_Subscribe(&made, state_->connection, subject.c_str(), hand_over, closure.get());
  if (status != NATS_OK) throw EngineSilent(nats_words(status));
  natsSubscription_SetOnCompleteCB(made, forget_handler, closure.release());
  natsSubscription_SetPendingLimits(made, -1, -1);
  return Subscription(std::shared_ptr<void>(
      made, [](void* subscription) { natsSubscription_Destroy(static_cast<natsSubscription*>(subscription)); }));
}

std::string NatsConnection::refusal_of(const std::string& subject) const {
  const auto wait = waiting();
  // The server answers in order: what it refused comes in front of its answer to this.
  if (const natsStatus status = natsConnection_FlushTimeout(state_->connection, settings_.patience.count());
      status != NATS_OK)
    throw EngineSilent(nats_words(status));
  const char* text = nullptr;
  if (natsConnection_GetLastError(state_->connection, &text) != NATS_NOT_PERMITTED || !text) return "";
  const std::string said = text;
  return said.find('"' + subject + '"') == std::string::npos ? "" : said;
}

}  // namespace tessera
