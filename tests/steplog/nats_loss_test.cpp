// What the server loses is found, and can be filled again.

#include <map>

#include "steplog/nats_connection.h"
#include "steplog/nats_samples.h"

namespace tessera::test {
namespace {

/// The blocks that the server keeps a stream in, by age.
std::map<int64_t, std::filesystem::path> blocks(const NatsServer& server) {
  std::map<int64_t, std::filesystem::path> found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(server.folder() / "store"))
    if (entry.path().extension() == ".blk" && entry.path().string().find("/TESSERA_run/") != std::string::npos)
      found[std::stoll(entry.path().stem())] = entry.path();
  return found;
}

constexpr size_t kLarge = 900'000;  // bytes of a record: a block holds 8 MB

/// A run whose stream lies in several blocks.
class NatsLossTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_nats_server()) GTEST_SKIP() << "nats-server is not there";
    server_ = std::make_unique<NatsServer>(NatsServer::Nodes{"a,b", "a,b"});
    mine_ = make_nats_engine(server_->settings("a"), kHeader);
  }
  NatsServer& server() { return *server_; }
  LogEngine& mine() { return *mine_; }

  void append_large(uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; ++i) ASSERT_EQ(append(*mine_, i, record(i, 1, kLarge)), Append::won) << i;
  }
  template <class Change> void restart_with(Change change) {
    const int64_t before = mine_->log_state().connections;
    server_->end(SIGTERM);
    change();
    server_->start();
    ASSERT_TRUE(wait_on(*mine_, [&] { return mine_->log_state().connections > before && mine_->log_state().complete; }))
        << mine_->log_state().trouble;
  }
  /// What an engine finds that is made now.
  void others_read(const std::vector<Bytes>& expected) {
    const Engine other = make_nats_engine(server_->settings("b"), kHeader);
    ASSERT_TRUE(reads(*other, expected.size()));
    EXPECT_EQ(other->read(0), expected);
    EXPECT_FALSE(other->log_state().gap);
    EXPECT_EQ(other->log_state().losses, 0) << "it has never seen more";
  }

 private:
  std::unique_ptr<NatsServer> server_;
  Engine mine_;
};

TEST_F(NatsLossTest, ARestartThatLosesNothingIsNoLoss) {
  ASSERT_EQ(mine().append(0, record(0)), Append::won);
  restart_with([] {});
  EXPECT_EQ(mine().log_state().losses, 0);
  EXPECT_EQ(mine().append(1, record(1)), Append::won);
  EXPECT_EQ(mine().read(0), records(2));
}

TEST_F(NatsLossTest, AStreamThatLostItsNewestBlockIsShorterAndIsFilledAgain) {
  append_large(0, 12);
  EXPECT_EQ(mine().read(11).size(), 1u);
  restart_with([&] {
    ASSERT_GT(blocks(server()).size(), 1u);
    std::filesystem::remove(blocks(server()).rbegin()->second);
  });
  const LogEngine::LogState state = mine().log_state();
  EXPECT_EQ(state.losses, 1);
  EXPECT_LT(state.records, 12u);
  EXPECT_GT(state.records, 0u);
  EXPECT_FALSE(state.gap);
  EXPECT_EQ(mine().read(0), records(state.records, kLarge)) << "what is left is read anew";
  others_read(records(state.records, kLarge));
  append_large(state.records, 12);
  others_read(records(12, kLarge));
}

TEST_F(NatsLossTest, AStreamThatLostABlockFromItsMiddleHasAGapAndIsFilledAgain) {
  append_large(0, 25);
  restart_with([&] {
    ASSERT_GT(blocks(server()).size(), 2u);
    std::filesystem::remove(std::next(blocks(server()).begin())->second);
  });
  const LogEngine::LogState state = mine().log_state();
  EXPECT_EQ(state.losses, 1);
  EXPECT_TRUE(state.gap);
  EXPECT_LT(state.records, 24u);
  EXPECT_EQ(state.last_sequence, 26u) << "the last one is there";
  append_large(state.records, 20);
  EXPECT_FALSE(mine().log_state().gap);
  EXPECT_EQ(mine().log_state().records, 25u) << "what stood behind the gap follows";
  others_read(records(25, kLarge));
}

TEST_F(NatsLossTest, AStreamThatIsGoneIsBegunAnew) {
  ASSERT_EQ(mine().append(0, record(0)), Append::won);
  ASSERT_EQ(mine().append(1, record(1)), Append::won);
  restart_with([&] { std::filesystem::remove_all(server().folder() / "store"); });
  EXPECT_EQ(mine().log_state().losses, 1);
  EXPECT_EQ(mine().log_state().records, 0u);
  others_read({});
  for (uint64_t i = 0; i < 3; ++i) ASSERT_EQ(append(mine(), i, record(i)), Append::won);
  others_read(records(3));
}

TEST_F(NatsLossTest, AStreamThatTheOperatorDeletesIsMissedByItsSilence) {
  NatsSettings attentive = server().settings("b");
  attentive.heartbeat = milliseconds(100);
  const Engine engine = make_nats_engine(attentive, kHeader);
  ASSERT_EQ(engine->append(0, record(0)), Append::won);
  NatsConnection oper(server().settings("operator"), [] {});
  const std::string subject = "$JS.API.STREAM.DELETE.TESSERA_run";
  ASSERT_TRUE(oper.publish(subject, {}));
  ASSERT_EQ(oper.refusal_of(subject), "");
  ASSERT_TRUE(wait_on(*engine, [&] { return engine->log_state().losses == 1 && engine->log_state().complete; }));
  EXPECT_EQ(engine->log_state().records, 0u);
  EXPECT_EQ(engine->log_state().connections, 1);
  EXPECT_EQ(append(*engine, 0, record(0)), Append::won);
  others_read(records(1));
}

TEST_F(NatsLossTest, AStreamOfOtherRecordsAndTheSameLengthIsALoss) {
  for (uint64_t i = 0; i < 2; ++i) ASSERT_EQ(mine().append(i, record(i)), Append::won);
  const std::filesystem::path store = server().folder() / "store", aside = server().folder() / "aside";
  server().end(SIGTERM);
  std::filesystem::rename(store, aside);
  server().start();
  const Engine other = make_nats_engine(server().settings("b"), kHeader);
  for (uint64_t i = 0; i < 2; ++i) ASSERT_EQ(append(*other, i, record(i, 2)), Append::won);
  ASSERT_TRUE(wait_on(mine(), [&] { return mine().log_state().losses == 1 && mine().log_state().records == 2; }));
  EXPECT_EQ(mine().read(0), (std::vector<Bytes>{record(0, 2), record(1, 2)})) << "the caller sees the fork";
  restart_with([&] {
    std::filesystem::remove_all(store);
    std::filesystem::rename(aside, store);
  });
  EXPECT_EQ(mine().log_state().losses, 2);
  EXPECT_EQ(mine().read(0), records(2));
}

TEST_F(NatsLossTest, AStreamWithoutItsHeaderIsRefused) {
  append_large(0, 12);
  server().end(SIGTERM);
  std::filesystem::remove(blocks(server()).begin()->second);
  server().start();
  EXPECT_EQ(error_text([&] { wait_on(mine(), [] { return false; }); }),
            "spsa.name: the stream TESSERA_run does not begin with a run's header\n"
            "  choose another name; the machines' own logs have what it had");
}

TEST_F(NatsLossTest, ANodeThatTheServerNoLongerKnowsIsToldSo) {
  ASSERT_EQ(mine().append(0, record(0)), Append::won);
  server().end(SIGTERM);
  std::filesystem::remove(server().folder() / "a.credentials");
  server().write_files();  // with a new password
  server().start();
  EXPECT_EQ(error_text([&] { wait_on(mine(), [] { return false; }); }),
            "spsa.credentials: the engine refuses node \"a\" (authorization violation)\n"
            "  take the files that scripts/start_nats has written for this node and this server");
}

TEST_F(NatsLossTest, ALongLogIsSentNoFasterThanItIsRead) {
  append_large(0, 80);  // more than the 64 MB at which the server gives up a connection
  const Engine slow = make_nats_engine(server().settings("b"), kHeader);
  sleep_seconds(0.5);
  ASSERT_TRUE(reads(*slow, 80));
  EXPECT_EQ(slow->read(79).size(), 1u);
  EXPECT_EQ(slow->log_state().connections, 1);
  EXPECT_EQ(slow->log_state().losses, 0);
}

TEST_F(NatsLossTest, ARecordOfAMebibyteIsTheLargest) {
  const Bytes large = record(0, 1, 1'047'000);
  EXPECT_EQ(mine().append(0, large), Append::won);
  EXPECT_THAT(error_text([&] { mine().append(1, record(1, 1, 1'049'000)); }),
              testing::HasSubstr("and the engine takes 1048000\n  fewer probes (spsa.probes) or machines"));
  others_read({large});
}

}  // namespace
}  // namespace tessera::test
