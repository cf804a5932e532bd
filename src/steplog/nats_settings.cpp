#include "steplog/nats_settings.h"

#include <sys/stat.h>

#include <algorithm>

#include "core/error.h"
#include "io/files.h"

namespace tessera {
namespace {

void check_name(std::string_view key, const std::string& name) {
  if (!is_engine_name(name))
    throw UserError(spsa_key(key), fmt::format("\"{}\" cannot be a name at the engine", name),
                    "use letters, digits, \"-\" and \"_\"");
}

}  // namespace

bool is_engine_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

std::string spsa_key(std::string_view key) { return fmt::format("spsa.{}", key); }

void check(const NatsSettings& settings) {
  check_name("name", settings.name);
  check_name("node", settings.node);
  if (settings.name.ends_with("_JOIN"))
    throw UserError(spsa_key("name"), fmt::format("\"{}\" ends as the streams of joins do", settings.name),
                    "choose another name");
  if (settings.servers.empty()) throw UserError(spsa_key("server"), "no server is named", "");
  for (const std::string& server : settings.servers) (void)parse_server(server);
  if (settings.tls_cert.empty() != settings.tls_key.empty())
    throw UserError(spsa_key(settings.tls_cert.empty() ? "tls_cert" : "tls_key"), "is missing",
                    "a certificate and its key are given together, or neither");
  if (!settings.tls_cert.empty() && settings.tls_ca.empty())
    throw UserError(spsa_key("tls_ca"), "is missing", "without the authority's certificate no server can be trusted");
}

NatsUser read_credentials(const NatsSettings& settings) {
  const std::filesystem::path& file = settings.credentials;
  const std::string text = read_text_file(file);
  struct stat status;
  if (::stat(file.c_str(), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
    throw UserError(file.string(), "holds a password, and others than its owner may read it", "chmod 600 the file");
  const size_t first = text.find('\n'), second = text.find('\n', first == std::string::npos ? first : first + 1);
  const std::string user = text.substr(0, first);
  const std::string password = first == std::string::npos ? "" : text.substr(first + 1, second - first - 1);
  if (user.empty() || password.empty())
    throw UserError(file.string(), "holds no user and password",
                    "write the user on its first line, the password below");
  if (user != settings.node)
    throw UserError(file.string(), fmt::format("is of node \"{}\", and this is node \"{}\"", user, settings.node),
                    fmt::format("take {}.credentials, or set {} = \"{}\"", settings.node, spsa_key("node"), user));
  return {user, password};
}

NatsAddress parse_server(const std::string& server) {
  const size_t scheme = server.find("://");
  const std::string kind = server.substr(0, scheme);
  const std::string rest = scheme == std::string::npos ? "" : server.substr(scheme + 3);
  // An IPv6 address stands in brackets, for its colons.
  const size_t behind = rest.starts_with('[') ? rest.find(']') : 0;
  const size_t colon = behind == std::string::npos ? behind : rest.find(':', behind);
  NatsAddress address{rest.substr(0, colon), colon == std::string::npos ? "4222" : rest.substr(colon + 1)};
  if (address.host.starts_with('[') && address.host.ends_with(']'))
    address.host = address.host.substr(1, address.host.size() - 2);
  const bool port = !address.port.empty() && address.port.size() <= 5 &&
                    address.port.find_first_not_of("0123456789") == std::string::npos;
  if ((kind != "nats" && kind != "tls") || address.host.empty() || !port ||
      address.host.find_first_of("@/ []") != std::string::npos)
    throw UserError(spsa_key("server"), fmt::format("\"{}\" is no server", server),
                    "write nats://HOST:PORT, or tls://HOST:PORT; passwords stand in the credentials file");
  return address;
}

NatsNames::NatsNames(const NatsSettings& settings) : prefix_(fmt::format("tessera.{}.", settings.name)) {
  log = prefix_ + "log";
  join = prefix_ + "join." + settings.node;
  vote = prefix_ + "vote." + settings.node;
  have = prefix_ + "have." + settings.node;
  votes = prefix_ + "vote.*";
  haves = prefix_ + "have.*";
  any_join = prefix_ + "join.*";
  log_stream = "TESSERA_" + settings.name;
  join_stream = log_stream + "_JOIN";
}

std::optional<std::string> NatsNames::sender(std::string_view kind, std::string_view subject) const {
  const std::string front = fmt::format("{}{}.", prefix_, kind);
  if (!subject.starts_with(front)) return std::nullopt;
  const std::string_view node = subject.substr(front.size());
  if (!is_engine_name(node)) return std::nullopt;
  return std::string(node);
}

}  // namespace tessera
