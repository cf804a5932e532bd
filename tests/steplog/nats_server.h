#pragma once
// A NATS server of a test's own, with the files that scripts/start_nats writes.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <memory>

#include "core/error.h"
#include "steplog/nats_settings.h"
#include "support/process.h"

namespace tessera::test {

inline bool has_nats_server() {
  static const bool found = run({.arguments = {"nats-server", "--version"}}).exit_code == 0;
  return found;
}

class NatsServer {
 public:
  struct Nodes {
    std::string all, packers;  // as scripts/start_nats takes them
    bool tls = false;
  };
  explicit NatsServer(const Nodes& nodes) : nodes_(nodes) {
    // A port that is free now may be taken by another test the moment after.
    for (int tries = 3; !process_;) {
      port_ = free_port();
      write_files();
      try {
        start();
      } catch (const UserError&) {
        process_.reset();
        if (--tries == 0) throw;
      }
    }
  }
  ~NatsServer() { end(SIGKILL); }

  /// Keeps the passwords that are there.
  void write_files() const {
    Command write{.arguments = {source_dir() / "scripts/start_nats", "--write-only", "--folder", folder_.path(),
                                "--nodes", nodes_.all, "--packers", nodes_.packers, "--port", std::to_string(port_)}};
    if (nodes_.tls) write.arguments.push_back("--tls");
    const Ended ended = run(write);
    if (ended.exit_code != 0) throw UserError("scripts/start_nats", ended.err);
  }

  void start() {
    process_ = std::make_unique<Process>(Command{.arguments = {"nats-server", "-c", folder_ / "nats.conf"}});
    wait_until([&] { return !process_->running() || answers(); }, 10);
    if (!process_->running() || !answers()) throw UserError("nats-server", process_->wait(0).err);
  }
  void end(int signal) {
    if (!process_) return;
    process_->send(signal);
    process_->wait(10);
    process_.reset();
  }
  /// As if it were very slow: nothing is answered until go_on(), and what is sent meanwhile waits.
  void hold() const {
    process_->send(SIGSTOP);
    const std::string status = "/proc/" + std::to_string(process_->pid()) + "/stat";
    wait_until([&] { return read_file(status).find(") T ") != std::string::npos; }, 10);
  }
  void go_on() const { process_->send(SIGCONT); }
  std::filesystem::path folder() const { return folder_.path(); }

  /// Of a machine that has its own files of this server.
  NatsSettings settings(const std::string& node, const std::string& name = "run") const {
    NatsSettings settings;
    settings.servers = {std::string(nodes_.tls ? "tls" : "nats") + "://127.0.0.1:" + std::to_string(port_)};
    settings.name = name;
    settings.node = node;
    settings.credentials = folder_ / (node + ".credentials");
    if (nodes_.tls) {
      settings.tls_ca = folder_ / "ca.pem";
      settings.tls_cert = folder_ / (node + ".pem");
      settings.tls_key = folder_ / (node + ".key");
    }
    settings.patience = std::chrono::milliseconds(2000);
    return settings;
  }

  static int free_port() {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ::bind(socket, reinterpret_cast<sockaddr*>(&address), size);
    ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
    ::close(socket);
    return ntohs(address.sin_port);
  }

 private:
  bool answers() const {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port_));
    const bool there = ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    ::close(socket);
    return there;
  }

  TemporaryFolder folder_;
  Nodes nodes_;
  int port_ = 0;
  std::unique_ptr<Process> process_;
};

}  // namespace tessera::test
