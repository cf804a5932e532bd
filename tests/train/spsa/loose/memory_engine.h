#pragma once
// A log server in memory that several nodes of a test share: it can lose records, refuse, fall silent, and let another
// node come in between.

#include <functional>
#include <map>

#include "steplog/log_engine.h"

namespace tessera::test {

/// What all nodes of a run see.
struct MemoryServer {
  std::map<uint64_t, Bytes> records;      // by number; one may be missing from the middle
  std::vector<LogEngine::Sent> controls;  // all that were sent, in order
  int64_t connections = 1, losses = 0;
  bool reachable = true, complete = true;
  std::optional<uint64_t> fork;
  std::function<void(uint64_t)> before_append;  // what others do just before record `expected` comes

  void fill(const std::vector<Bytes>& all) {
    for (const Bytes& record : all) records.emplace(records.size(), record);
  }
  /// Numbers from `from` to below `to` vanish, as a stream that lost a block is found on the next connection.
  void lose(uint64_t from, uint64_t to) {
    records.erase(records.lower_bound(from), records.lower_bound(to));
    ++losses;
    ++connections;
  }
  /// The first number that is not there.
  uint64_t next() const {
    uint64_t number = 0;
    while (records.contains(number)) ++number;
    return number;
  }
  /// The records are 0, 1, .. of these bytes, and nothing else.
  std::vector<Bytes> in_order() const {
    std::vector<Bytes> all;
    for (const auto& [number, record] : records) all.push_back(record);
    return all;
  }
};

class MemoryEngine final : public LogEngine {
 public:
  MemoryEngine(MemoryServer& server, std::string node) : server_(server), node_(std::move(node)) {}

  void publish_vote(std::span<const std::byte>) override {}
  std::vector<Bytes> take_votes() override { return {}; }
  void publish_control(std::span<const std::byte> message) override {
    server_.controls.push_back({node_, {message.begin(), message.end()}});
  }
  /// As that of NATS: the same bytes at their place again are no conflict.
  Append append(uint64_t expected, std::span<const std::byte> record) override {
    if (server_.before_append) server_.before_append(expected);
    if (!server_.reachable) return Append::unknown;
    const auto found = server_.records.find(expected);
    if (found != server_.records.end())
      return std::ranges::equal(found->second, record) ? Append::won : Append::conflict;
    if (expected != server_.next()) return Append::conflict;
    server_.records.emplace(expected, Bytes(record.begin(), record.end()));
    return Append::won;
  }
  std::vector<Bytes> read(uint64_t from) override {
    std::vector<Bytes> all;
    for (; server_.records.contains(from); ++from) all.push_back(server_.records.at(from));
    return all;
  }
  void wait(std::chrono::milliseconds) override {}
  LogState log_state() override {
    LogState state;
    state.reachable = server_.reachable;
    state.connections = server_.connections;
    state.complete = server_.complete;
    state.records = server_.next();
    state.gap = state.records < server_.records.size();
    state.losses = server_.losses;
    state.fork = server_.fork;
    return state;
  }

 private:
  MemoryServer& server_;
  std::string node_;
};

}  // namespace tessera::test
