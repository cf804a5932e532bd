// Each test has a run, some a server, of its own.

#include "steplog/nats_engine.h"

#include <atomic>
#include <map>
#include <thread>

#include "steplog/control_message.h"
#include "steplog/nats_connection.h"
#include "steplog/nats_samples.h"

namespace tessera::test {
namespace {

class NatsEngineTest : public SharedServerTest {};

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

TEST_F(NatsEngineTest, ARecordThatIsThereTwiceAndDiffersIsAFork) {
  const Engine mine = engine("a"), other = engine("b");
  ASSERT_EQ(mine->append(0, record(0)), Append::won);
  ASSERT_EQ(mine->append(1, record(1)), Append::won);
  NatsConnection astray(settings("b"), [] {});  // appends without comparing
  const std::string log = "tessera." + name() + ".log";
  ASSERT_TRUE(astray.publish(log, record(0)));
  ASSERT_TRUE(wait_on(*other, [&] { return other->log_state().last_sequence == 4; }));
  EXPECT_EQ(other->log_state().fork, std::nullopt) << "the same once more";
  ASSERT_TRUE(astray.publish(log, record(1, 2)));
  for (LogEngine* engine : {mine.get(), other.get()}) {
    ASSERT_TRUE(wait_on(*engine, [&] { return engine->log_state().fork.has_value(); }));
    EXPECT_EQ(engine->log_state().fork, 1u);
    EXPECT_EQ(engine->read(0), records(2)) << "the first one counts";
  }
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

TEST(NatsEngine, WhoIsAskedToStopDoesNotWaitForAServerThatHangs) {
  if (!has_nats_server()) GTEST_SKIP() << "nats-server is not there";
  NatsServer server({"a,b", "a,b"});
  std::atomic<bool> is_asked = false;
  NatsSettings settings = server.settings("a");
  settings.patience = std::chrono::minutes(10);
  settings.is_asked_to_stop = [&] { return is_asked.load(); };
  Engine mine = make_nats_engine(settings, kHeader);
  ASSERT_EQ(mine->append(0, record(0)), Append::won);
  server.hold();
  std::thread signal([&] {
    sleep_seconds(0.3);
    is_asked = true;
  });
  EXPECT_EQ(mine->append(1, record(1)), Append::unknown);
  signal.join();
  // What a machine does that leaves: its message is lost, and the roster does without it after some rounds.
  mine->publish_control(encode(RosterRequest{RosterRequest::Kind::leave, 1, 40}));
  mine->wait(milliseconds(50));
  EXPECT_EQ(mine->append(1, record(1)), Append::unknown);
  EXPECT_FALSE(mine->log_state().reachable);
  mine.reset();  // a call that was not cut would have lasted until the test's limit
}

TEST(NatsEngine, WhoIsAskedToStopStillSaysWhatAServerThatLivesTakes) {
  if (!has_nats_server()) GTEST_SKIP() << "nats-server is not there";
  NatsServer server({"a,b,c", "a,b"});
  NatsSettings voter = server.settings("c");
  voter.is_asked_to_stop = [] { return true; };
  EXPECT_THROW(make_nats_engine(voter, kHeader), Stopped) << "while it waits for who may begin the run";
  std::atomic<bool> is_asked = false;
  NatsSettings settings = server.settings("a");
  settings.is_asked_to_stop = [&] { return is_asked.load(); };
  const Engine mine = make_nats_engine(settings, kHeader), other = make_nats_engine(server.settings("b"), kHeader);
  is_asked = true;
  sleep_seconds(1.2);  // longer than a wait may last: none is under way
  EXPECT_EQ(mine->append(0, record(0)), Append::won);
  mine->publish_control(encode(RosterRequest{RosterRequest::Kind::leave, 1, 40}));
  ASSERT_TRUE(reads(*other, 1));
  std::vector<LogEngine::Sent> heard;
  EXPECT_TRUE(wait_on(*other, [&] {
    for (LogEngine::Sent& sent : other->take_controls()) heard.push_back(std::move(sent));
    return !heard.empty();
  }));
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

}  // namespace
}  // namespace tessera::test
