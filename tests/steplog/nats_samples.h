#pragma once
// Engines, records and runs for the tests of the log over NATS.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "steplog/nats_engine.h"
#include "steplog/nats_server.h"
#include "steplog/samples.h"
#include "support/error_text.h"

namespace tessera::test {

using std::chrono::milliseconds;
using Append = LogEngine::Append;
using Engine = std::unique_ptr<LogEngine>;

inline Bytes record(uint64_t index, float alpha = 1, size_t bytes = 0) {
  Record record;
  record.index = index;
  record.alpha = alpha;
  if (bytes > 0) {  // of about that size
    record.m = 255;
    record.lanes = static_cast<uint16_t>(bytes / 255);
    record.present.assign(record.lanes, true);
    record.bytes.assign(size_t{record.lanes} * record.m, static_cast<uint8_t>(index));
  }
  return encode(record);
}

inline std::vector<Bytes> records(uint64_t count, size_t bytes = 0) {
  std::vector<Bytes> all;
  for (uint64_t i = 0; i < count; ++i) all.push_back(record(i, 1, bytes));
  return all;
}

/// Waits on the engine until the condition holds; false after some seconds.
template <class Condition> bool wait_on(LogEngine& engine, Condition condition, double seconds = 10) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    engine.wait(milliseconds(100));
  }
  return true;
}

inline bool reads(LogEngine& engine, uint64_t count) {
  return wait_on(engine, [&] { return engine.log_state().complete && engine.log_state().records == count; });
}

/// Appends until there is an answer.
inline Append append(LogEngine& engine, uint64_t number, const Bytes& bytes) {
  for (;;)
    if (const Append done = engine.append(number, bytes); done != Append::unknown) return done;
}

/// A run of the test's own, at a server of all tests of the suite.
class SharedServerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (has_nats_server()) server_ = std::make_unique<NatsServer>(NatsServer::Nodes{"a,b,c,d", "a,b"});
  }
  static void TearDownTestSuite() { server_.reset(); }
  void SetUp() override {
    if (!server_) GTEST_SKIP() << "nats-server is not there";
  }
  static NatsServer& server() { return *server_; }
  static std::string name() { return ::testing::UnitTest::GetInstance()->current_test_info()->name(); }
  static NatsSettings settings(const std::string& node) { return server().settings(node, name()); }
  static Engine engine(const std::string& node) { return make_nats_engine(settings(node), kHeader); }

 private:
  inline static std::unique_ptr<NatsServer> server_;
};

}  // namespace tessera::test
