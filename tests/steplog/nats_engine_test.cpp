// Each test has a run, some a server, of its own.

#include "steplog/nats_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "steplog/control_message.h"
#include "steplog/nats_server.h"
#include "steplog/nats_streams.h"
#include "steplog/samples.h"
#include "support/error_text.h"

namespace tessera::test {
namespace {

using std::chrono::milliseconds;
using Append = LogEngine::Append;
using Engine = std::unique_ptr<LogEngine>;

Bytes record(uint64_t index, float alpha = 1, size_t bytes = 0) {
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

std::vector<Bytes> records(uint64_t count, size_t bytes = 0) {
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

bool reads(LogEngine& engine, uint64_t count) {
  return wait_on(engine, [&] { return engine.log_state().complete && engine.log_state().records == count; });
}

/// Appends until there is an answer.
Append append(LogEngine& engine, uint64_t number, const Bytes& bytes) {
  for (;;)
    if (const Append done = engine.append(number, bytes); done != Append::unknown) return done;
}

class NatsEngineTest : public ::testing::Test {
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

TEST_F(NatsEngineTest, ARecordGoesThereAndComesBack) {
  const Engine mine = engine("a");
  EXPECT_TRUE(mine->read(0).empty());
  EXPECT_EQ(mine->append(0, record(0)), Append::won);
  EXPECT_EQ(mine->read(0), records(1));
  const Engine other = engine("b");
  EXPECT_TRUE(reads(*other, 1));
  EXPECT_EQ(other->read(0), records(1));
  EXPECT_EQ(mine->log_state().last_sequence, 2u) << "the header is a message, too";
}

/// Appends records 0 .. count-1 beside others who do the same. @return how many of them are its own
int64_t race(LogEngine& engine, uint64_t count, float alpha) {
  int64_t won = 0;
  for (uint64_t next = 0; next < count; next = engine.log_state().records)
    if (append(engine, next, record(next, alpha)) == Append::won) ++won;
  return won;
}

TEST_F(NatsEngineTest, TwoPackersWriteAThousandRecordsWithoutAGap) {
  const Engine first = engine("a"), second = engine("b");
  int64_t of_second = 0;
  std::thread other([&] { of_second = race(*second, 1000, 2); });
  const int64_t of_first = race(*first, 1000, 1);
  other.join();
  EXPECT_EQ(of_first + of_second, 1000) << "every place was won once";
  EXPECT_GT(of_first, 0);
  EXPECT_GT(of_second, 0);
  ASSERT_TRUE(reads(*first, 1000) && reads(*second, 1000));
  const std::vector<Bytes> all = first->read(0);
  ASSERT_EQ(all.size(), 1000u);
  EXPECT_EQ(second->read(0), all);
  for (uint64_t i = 0; i < all.size(); ++i) ASSERT_EQ(std::get<Record>(decode_record(all[i])).index, i);
  EXPECT_EQ(first->log_state().last_sequence, 1001u);
  const Engine third = engine("c");
  ASSERT_TRUE(reads(*third, 1000));
  EXPECT_EQ(third->read(0), all) << "who comes later reads the same";
}

TEST_F(NatsEngineTest, WhoComesSecondHasAConflictAndReadsTheFirst) {
  const Engine first = engine("a"), second = engine("b");
  EXPECT_EQ(first->append(0, record(0, 1)), Append::won);
  EXPECT_EQ(second->append(0, record(0, 2)), Append::conflict);
  EXPECT_EQ(second->read(0), (std::vector<Bytes>{record(0, 1)}));
  EXPECT_EQ(second->append(0, record(0, 1)), Append::won) << "these very bytes are there";
  EXPECT_EQ(second->append(5, record(5)), Append::conflict) << "beyond the end";
  EXPECT_EQ(second->append(1, record(1)), Append::won);
  EXPECT_TRUE(reads(*first, 2));
  EXPECT_EQ(first->read(0), records(2));
  EXPECT_EQ(first->traffic().up, static_cast<int64_t>(record(0).size()));
}

TEST_F(NatsEngineTest, ReadsAgainFromAnyNumber) {
  const Engine mine = engine("a");
  for (uint64_t i = 0; i < 20; ++i) ASSERT_EQ(mine->append(i, record(i)), Append::won);
  EXPECT_EQ(mine->read(15).size(), 5u);
  EXPECT_TRUE(mine->read(3).empty()) << "dropped, and asked for again";
  ASSERT_TRUE(reads(*mine, 20));
  EXPECT_EQ(mine->read(0), records(20));
  EXPECT_EQ(mine->log_state().losses, 0);
}

TEST_F(NatsEngineTest, VotesReachPackersAndTellTheirNode) {
  const Engine a = engine("a"), b = engine("b"), voter = engine("c");
  const Bytes vote = bytes_of({1, 2, 3}), other = bytes_of({4});
  voter->publish_vote(vote);
  a->publish_vote(other);
  for (LogEngine* packer : {a.get(), b.get()}) {
    std::map<std::string, Bytes> votes;
    ASSERT_TRUE(wait_on(*packer, [&] {
      for (LogEngine::Sent& sent : packer->take_sent_votes()) votes[sent.node] = sent.bytes;
      return votes.size() == 2;
    }));
    EXPECT_EQ(votes["c"], vote);
    EXPECT_EQ(votes["a"], other) << "one's own vote, too";
    EXPECT_EQ(packer->traffic().down, 4);
  }
  EXPECT_TRUE(a->log_state().may_pack);
  EXPECT_FALSE(voter->log_state().may_pack);
  EXPECT_TRUE(voter->take_votes().empty()) << "the server hands a voter no votes";
  EXPECT_EQ(voter->traffic().up, 3);
}

TEST_F(NatsEngineTest, ControlMessagesReachAllAndRequestsAreKept) {
  const auto join = [](uint32_t machine, RosterRequest::Kind kind = RosterRequest::Kind::join) {
    return encode(ControlMessage{RosterRequest{kind, 7, machine}});
  };
  const Bytes have = encode(ControlMessage{HaveRecords{7, 12, 99}});
  const Engine a = engine("a"), voter = engine("c");
  voter->publish_control(join(100));
  a->publish_control(join(200));
  voter->publish_control(join(100, RosterRequest::Kind::leave));
  voter->publish_control(have);
  const auto controls_of = [](LogEngine& engine, size_t count) {
    std::vector<std::pair<std::string, Bytes>> all;
    EXPECT_TRUE(wait_on(engine, [&] {
      for (LogEngine::Sent& sent : engine.take_controls()) all.emplace_back(sent.node, sent.bytes);
      return all.size() >= count;
    }));
    return all;
  };
  const std::vector<std::pair<std::string, Bytes>> requests = {
      {"c", join(100)}, {"a", join(200)}, {"c", join(100, RosterRequest::Kind::leave)}};
  auto everything = requests;
  everything.emplace_back("c", have);
  EXPECT_THAT(controls_of(*a, 4), testing::UnorderedElementsAreArray(everything));
  EXPECT_THAT(controls_of(*voter, 4), testing::UnorderedElementsAreArray(everything));
  const Engine later = engine("b");
  EXPECT_EQ(controls_of(*later, 3), requests) << "in order, and without the HAVE";
}

TEST_F(NatsEngineTest, WaitReturnsOnAVoteOrARecordAndElseWhenItsTimeIsOver) {
  const Engine a = engine("a"), b = engine("b");
  const auto waits = [&](auto&& speak) {
    while (b->wait(milliseconds(20)), !b->take_votes().empty()) {
    }
    b->wait(milliseconds(20));  // what is still known as news
    std::thread other([&] { sleep_seconds(0.05), speak(); });
    const auto begin = std::chrono::steady_clock::now();
    b->wait(milliseconds(5000));
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    other.join();
    return seconds;
  };
  EXPECT_LT(waits([&] { a->publish_vote(bytes_of({1})); }), 2);
  EXPECT_LT(waits([&] { a->append(0, record(0)); }), 2);
  EXPECT_EQ(b->read(0), records(1));
  const auto begin = std::chrono::steady_clock::now();
  b->wait(milliseconds(20));
  b->wait(milliseconds(60));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(60));
}

TEST_F(NatsEngineTest, AnotherHeaderUnderTheNameIsRefused) {
  const Engine mine = engine("a");
  const std::string other = R"({"format": 1, "eps": "3a83126f", "privacy": {"clip": 9}})";
  for (const std::string node : {"b", "c"})
    EXPECT_EQ(error_text([&] { make_nats_engine(settings(node), other); }),
              "spsa.name: the log belongs to another run: \"privacy.clip\" is 8 there and 9 here\n"
              "  continue with the settings that the run began with, or choose another name");
}

TEST_F(NatsEngineTest, AVoterBeginsNoRunAndWaitsForOne) {
  NatsSettings voter = settings("c");
  voter.first_patience = milliseconds(300);
  EXPECT_EQ(
      error_text([&] { make_nats_engine(voter, kHeader); }),
      "spsa.name: there is no run \"AVoterBeginsNoRunAndWaitsForOne\" at the engine, and node \"c\" may not begin "
      "one\n  start a node that packs first");
  voter.first_patience = milliseconds(10'000);
  Engine waiting;
  std::thread begins([&] { sleep_seconds(0.3), engine("a"); });
  EXPECT_EQ(error_text([&] { waiting = make_nats_engine(voter, kHeader); }), kNothingThrown);
  begins.join();
}

TEST_F(NatsEngineTest, AVoterThatWritesARecordIsRefused) {
  NatsSettings impatient = settings("c");
  impatient.patience = milliseconds(300);
  const Engine packer = engine("a"), voter = make_nats_engine(impatient, kHeader);
  EXPECT_EQ(error_text([&] { voter->append(0, record(0)); }),
            "spsa.credentials: the engine refuses node \"c\": Permissions Violation for Publish to "
            "\"tessera.AVoterThatWritesARecordIsRefused.log\"\n"
            "  its permissions are in the server's file: scripts/start_nats --nodes ... --packers ...");
  EXPECT_EQ(packer->append(0, record(0)), Append::won) << "nothing of it is there";
}

// What a node of that name may publish to: the server says no, or nothing.
bool may_publish(NatsConnection& node, const std::string& subject) {
  EXPECT_TRUE(node.publish(subject, bytes_of({'{', '}'})));
  return node.refusal_of(subject).empty();
}

TEST_F(NatsEngineTest, ForeignSubjectsAreRefusedByTheServer) {
  const Engine begun = engine("a");
  const std::string run = "tessera." + name() + ".", stream = "TESSERA_" + name();
  NatsConnection voter(settings("c"), [] {}), packer(settings("b"), [] {});
  for (const std::string kind : {"vote", "join", "have"})
    for (const std::string node : {"a", "b", "c", "d", "x"}) {
      EXPECT_EQ(may_publish(voter, run + kind + "." + node), node == "c") << kind << " of " << node;
      EXPECT_EQ(may_publish(packer, run + kind + "." + node), node == "b") << kind << " of " << node;
    }
  EXPECT_FALSE(may_publish(voter, run + "log"));
  for (const std::string& subject : {"tessera." + name(), run + "vote", run + "log.x", std::string("_INBOX.x"),
                                     std::string("$SYS.REQ.SERVER.PING"), std::string("other")}) {
    EXPECT_FALSE(may_publish(voter, subject)) << subject;
    EXPECT_FALSE(may_publish(packer, subject)) << subject;
  }
}

TEST_F(NatsEngineTest, CallsThatChangeAStreamAreRefusedByTheServer) {
  const Engine begun = engine("a");
  ASSERT_EQ(begun->append(0, record(0)), Append::won);
  const std::string stream = "TESSERA_" + name();
  NatsConnection voter(settings("c"), [] {}), packer(settings("b"), [] {});
  for (const std::string call : {"STREAM.DELETE", "STREAM.PURGE", "STREAM.UPDATE", "STREAM.MSG.DELETE",
                                 "STREAM.SNAPSHOT", "STREAM.RESTORE", "CONSUMER.DURABLE.CREATE", "CONSUMER.NAMES"})
    for (const std::string& name : {stream, stream + "_JOIN", stream + ".x"}) {
      const std::string subject = "$JS.API." + call + "." + name;
      EXPECT_FALSE(may_publish(voter, subject)) << subject;
      EXPECT_FALSE(may_publish(packer, subject)) << subject;
    }
  EXPECT_FALSE(may_publish(voter, "$JS.API.STREAM.CREATE." + stream));
  EXPECT_FALSE(may_publish(packer, "$JS.API.STREAM.LIST"));
  const Engine later = engine("d");
  ASSERT_TRUE(reads(*later, 1));
  EXPECT_EQ(later->read(0), records(1));
}

TEST_F(NatsEngineTest, ForeignSubjectsAreNotHeard) {
  NatsConnection voter(settings("c"), [] {});
  for (const std::string subject :
       {"tessera.*.vote.*", "tessera.*.join.*", "tessera.*.log", "tessera.>", ">", "$JS.>"}) {
    const auto heard = voter.subscribe(subject, [](NatsMessage) {});
    EXPECT_NE(voter.refusal_of(subject), "") << subject;
  }
}

// A consumer delivers where its maker wants. What it brings into the log keeps its own subject, and is no record.
TEST_F(NatsEngineTest, AConsumerOfAVoterBringsNothingIntoTheLog) {
  const Engine packer = engine("a"), voter = engine("c");
  ASSERT_EQ(packer->append(0, record(0)), Append::won);
  const Bytes join = encode(ControlMessage{RosterRequest{RosterRequest::Kind::join, 7, 1}});
  voter->publish_control(join);
  const std::string run = "tessera." + name() + ".", stream = "TESSERA_" + name();
  NatsConnection evil(settings("c"), [] {});
  for (const std::string& target : {run + "log", run + "vote.b", run + "have.b"}) {
    const std::string request = R"({"stream_name":")" + stream + R"(_JOIN","config":{"deliver_subject":")" + target +
                                R"(","deliver_policy":"all","ack_policy":"none","replay_policy":"instant"}})";
    ASSERT_TRUE(evil.publish("$JS.API.CONSUMER.CREATE." + stream + "_JOIN", std::as_bytes(std::span(request))));
  }
  ASSERT_TRUE(wait_on(*packer, [&] { return packer->log_state().last_sequence == 3; })) << "the message is there";
  EXPECT_EQ(packer->log_state().records, 1u);
  EXPECT_EQ(packer->append(1, record(1)), Append::won);
  const Engine later = engine("b");
  ASSERT_TRUE(reads(*later, 2));
  EXPECT_EQ(later->read(0), records(2));
  EXPECT_TRUE(packer->take_votes().empty());
  for (const LogEngine::Sent& sent : packer->take_controls()) EXPECT_EQ(sent.node, "c");
}

TEST_F(NatsEngineTest, AMessageThatIsNoRecordHaltsAllAlike) {
  const Engine a = engine("a"), b = engine("b");
  NatsConnection packer(settings("a"), [] {});
  ASSERT_TRUE(packer.publish("tessera." + name() + ".log", bytes_of({1, 2, 3})));
  for (LogEngine* engine : {a.get(), b.get()})
    EXPECT_THAT(error_text([&] {
                  wait_on(
                      *engine, [] { return false; }, 5);
                }),
                testing::StartsWith("the engine's log: message 2 is no record (length: "));
}

TEST_F(NatsEngineTest, WrongCredentialsAreTold) {
  NatsSettings wrong = settings("a");
  const TemporaryFolder folder;
  wrong.credentials = folder / "a.credentials";
  const auto with = [&](const std::string& text, std::filesystem::perms mode = std::filesystem::perms::owner_all) {
    write_file(wrong.credentials, text);
    std::filesystem::permissions(wrong.credentials, mode);
    return error_text([&] { make_nats_engine(wrong, kHeader); });
  };
  EXPECT_EQ(with("a\nguess\n"),
            "spsa.credentials: the engine refuses node \"a\" (authorization violation)\n"
            "  take the files that scripts/start_nats has written for this node and this server");
  EXPECT_EQ(with("b\nguess\n"), wrong.credentials.string() + ": is of node \"b\", and this is node \"a\"\n" +
                                    "  take a.credentials, or set spsa.node = \"b\"");
  EXPECT_THAT(with("a"), testing::HasSubstr("holds no user and password"));
  EXPECT_EQ(
      with("a\nguess\n", std::filesystem::perms::owner_all | std::filesystem::perms::group_read),
      wrong.credentials.string() + ": holds a password, and others than its owner may read it\n  chmod 600 the file");
  wrong.credentials.clear();
  EXPECT_THAT(error_text([&] { make_nats_engine(wrong, kHeader); }),
              testing::StartsWith("spsa.credentials: the engine refuses node \"a\" (authorization violation)"));
}

TEST_F(NatsEngineTest, AServerThatDoesNotAnswerIsTold) {
  NatsSettings nobody = settings("a");
  nobody.servers = {"nats://127.0.0.1:" + std::to_string(NatsServer::free_port())};
  EXPECT_EQ(error_text([&] { make_nats_engine(nobody, kHeader); }), "spsa.server: " + nobody.servers[0] +
                                                                        " does not answer (connection refused)\n" +
                                                                        "  scripts/start_nats starts one");
  const std::string there = settings("a").servers[0];
  nobody.servers.push_back(there);
  EXPECT_EQ(error_text([&] { make_nats_engine(nobody, kHeader); }), kNothingThrown) << "the second one answers";
}

// The lost answer: the server has the message and says so to nobody, as it is stopped.
TEST(NatsEngine, ARetryBehindALostAnswerMakesNoSecondRecord) {
  if (!has_nats_server()) GTEST_SKIP() << "nats-server is not there";
  NatsServer server({"a,b", "a,b"});
  NatsSettings impatient = server.settings("a");
  impatient.patience = milliseconds(400);
  const Engine mine = make_nats_engine(impatient, kHeader), other = make_nats_engine(server.settings("b"), kHeader);
  ASSERT_EQ(mine->append(0, record(0)), Append::won);
  server.hold();
  EXPECT_EQ(mine->append(1, record(1)), Append::unknown);
  EXPECT_NE(mine->log_state().trouble, "");
  server.go_on();
  EXPECT_EQ(append(*mine, 1, record(1)), Append::won);
  EXPECT_EQ(mine->append(1, record(1, 2)), Append::conflict);
  ASSERT_TRUE(reads(*other, 2));
  EXPECT_EQ(other->read(0), records(2));
  EXPECT_EQ(other->log_state().last_sequence, 3u) << "header and two records";
  EXPECT_EQ(mine->log_state().trouble, "");
  // The same where another one wants the place: the server may take either first.
  server.hold();
  EXPECT_EQ(mine->append(2, record(2)), Append::unknown);
  server.go_on();
  const Append of_other = append(*other, 2, record(2, 2));
  EXPECT_EQ(append(*mine, 2, record(2)), of_other == Append::won ? Append::conflict : Append::won);
  ASSERT_TRUE(reads(*mine, 3) && reads(*other, 3));
  EXPECT_EQ(mine->read(2), other->read(2));
  EXPECT_EQ(mine->log_state().last_sequence, 4u);
}

TEST(NatsEngine, ASilentSubscriptionIsRenewed) {
  if (!has_nats_server()) GTEST_SKIP() << "nats-server is not there";
  NatsServer server({"a,b", "a,b"});
  NatsSettings attentive = server.settings("a");
  attentive.heartbeat = milliseconds(100);
  attentive.patience = milliseconds(300);
  const Engine mine = make_nats_engine(attentive, kHeader), other = make_nats_engine(server.settings("b"), kHeader);
  ASSERT_EQ(other->append(0, record(0)), Append::won);
  ASSERT_TRUE(reads(*mine, 1));
  server.hold();
  mine->wait(milliseconds(1000));  // ten heartbeats are missing
  EXPECT_TRUE(wait_on(*mine, [&] { return !mine->log_state().complete; }));
  server.go_on();
  for (uint64_t i = 1; i < 20; ++i) ASSERT_EQ(append(*other, i, record(i)), Append::won);
  ASSERT_TRUE(reads(*mine, 20));
  EXPECT_EQ(mine->read(0), records(20));
  EXPECT_EQ(mine->log_state().losses, 0);
}

TEST(NatsEngine, AServerKilledInABurstLosesNothingThatWasSaidToBeThere) {
  if (!has_nats_server()) GTEST_SKIP() << "nats-server is not there";
  NatsServer server({"a,b", "a,b"});
  const Engine mine = make_nats_engine(server.settings("a"), kHeader);
  std::atomic<uint64_t> written = 0;
  std::thread killer([&] {
    for (const uint64_t at : {100, 200}) {
      wait_until([&] { return written >= at; }, 10);
      server.end(SIGKILL);
      sleep_seconds(0.1);
      server.start();
    }
  });
  for (; written < 400; ++written) ASSERT_EQ(append(*mine, written, record(written)), Append::won) << written;
  killer.join();
  EXPECT_EQ(mine->log_state().connections, 3);
  EXPECT_EQ(mine->log_state().losses, 0);
  ASSERT_TRUE(reads(*mine, 400));
  const Engine other = make_nats_engine(server.settings("b"), kHeader);
  ASSERT_TRUE(reads(*other, 400));
  EXPECT_EQ(other->read(0), records(400));
  EXPECT_EQ(other->log_state().last_sequence, 401u) << "none is there twice";
}

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
class LossTest : public ::testing::Test {
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

TEST_F(LossTest, ARestartThatLosesNothingIsNoLoss) {
  ASSERT_EQ(mine().append(0, record(0)), Append::won);
  restart_with([] {});
  EXPECT_EQ(mine().log_state().losses, 0);
  EXPECT_EQ(mine().append(1, record(1)), Append::won);
  EXPECT_EQ(mine().read(0), records(2));
}

TEST_F(LossTest, AStreamThatLostItsNewestBlockIsShorterAndIsFilledAgain) {
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

TEST_F(LossTest, AStreamThatLostABlockFromItsMiddleHasAGapAndIsFilledAgain) {
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

TEST_F(LossTest, AStreamThatIsGoneIsBegunAnew) {
  ASSERT_EQ(mine().append(0, record(0)), Append::won);
  ASSERT_EQ(mine().append(1, record(1)), Append::won);
  restart_with([&] { std::filesystem::remove_all(server().folder() / "store"); });
  EXPECT_EQ(mine().log_state().losses, 1);
  EXPECT_EQ(mine().log_state().records, 0u);
  others_read({});
  for (uint64_t i = 0; i < 3; ++i) ASSERT_EQ(append(mine(), i, record(i)), Append::won);
  others_read(records(3));
}

TEST_F(LossTest, AStreamOfOtherRecordsAndTheSameLengthIsALoss) {
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

TEST_F(LossTest, AStreamWithoutItsHeaderIsRefused) {
  append_large(0, 12);
  server().end(SIGTERM);
  std::filesystem::remove(blocks(server()).begin()->second);
  server().start();
  EXPECT_EQ(error_text([&] { wait_on(mine(), [] { return false; }); }),
            "spsa.name: the stream TESSERA_run does not begin with a run's header\n"
            "  choose another name; the machines' own logs have what it had");
}

TEST_F(LossTest, ANodeThatTheServerNoLongerKnowsIsToldSo) {
  ASSERT_EQ(mine().append(0, record(0)), Append::won);
  server().end(SIGTERM);
  std::filesystem::remove(server().folder() / "a.credentials");
  server().write_files();  // with a new password
  server().start();
  EXPECT_EQ(error_text([&] { wait_on(mine(), [] { return false; }); }),
            "spsa.credentials: the engine refuses node \"a\" (authorization violation)\n"
            "  take the files that scripts/start_nats has written for this node and this server");
}

TEST_F(LossTest, ARecordOfAMebibyteIsTheLargest) {
  const Bytes large = record(0, 1, 1'047'000);
  EXPECT_EQ(mine().append(0, large), Append::won);
  EXPECT_THAT(error_text([&] { mine().append(1, record(1, 1, 1'049'000)); }),
              testing::HasSubstr("and the engine takes 1048000\n  fewer probes (spsa.probes) or machines"));
  others_read({large});
}

TEST(NatsEngine, TlsAsksBothSidesForCertificatesOfOneAuthority) {
  if (!has_nats_server()) GTEST_SKIP() << "nats-server is not there";
  const NatsServer server({"a,b", "a,b", true}), foreign({"a,b", "a,b", true});
  const Engine mine = make_nats_engine(server.settings("a"), kHeader);
  EXPECT_EQ(mine->append(0, record(0)), Append::won);
  const NatsSettings theirs = foreign.settings("b");
  NatsSettings wrong = server.settings("b");
  const auto error = [&] { return error_text([&] { make_nats_engine(wrong, kHeader); }); };
  const std::string hint = "\n  take the files that scripts/start_nats has written for this node and this server";
  wrong.tls_cert = theirs.tls_cert, wrong.tls_key = theirs.tls_key;
  EXPECT_EQ(error(), "spsa.credentials: the engine refuses node \"b\" (certificate not accepted)" + hint);
  wrong.tls_cert.clear(), wrong.tls_key.clear();
  EXPECT_EQ(error(), "spsa.credentials: the engine refuses node \"b\" (it asks for a certificate)" + hint);
  wrong = server.settings("b"), wrong.tls_ca = theirs.tls_ca;
  EXPECT_THAT(error(), testing::StartsWith("spsa.tls_ca: the server's certificate is not trusted ("));
  wrong = server.settings("b"), wrong.credentials = theirs.credentials;
  EXPECT_EQ(error(), "spsa.credentials: the engine refuses node \"b\" (authorization violation)" + hint);
  wrong = server.settings("b"), wrong.tls_ca.clear(), wrong.tls_cert.clear(), wrong.tls_key.clear();
  EXPECT_THAT(error(), testing::StartsWith("spsa.tls_ca: the server's certificate is not trusted ("));
}

}  // namespace
}  // namespace tessera::test
