// What the server refuses, by the permissions of docs/nats.md that scripts/start_nats writes, and how it is told.

#include "steplog/control_message.h"
#include "steplog/nats_connection.h"
#include "steplog/nats_samples.h"

namespace tessera::test {
namespace {

class NatsPermissionsTest : public SharedServerTest {};

TEST_F(NatsPermissionsTest, AVoterThatWritesARecordIsRefused) {
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

TEST_F(NatsPermissionsTest, ForeignSubjectsAreRefusedByTheServer) {
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

TEST_F(NatsPermissionsTest, CallsThatChangeAStreamAreRefusedByTheServer) {
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

TEST_F(NatsPermissionsTest, ForeignSubjectsAreNotHeard) {
  NatsConnection voter(settings("c"), [] {});
  for (const std::string subject :
       {"tessera.*.vote.*", "tessera.*.join.*", "tessera.*.log", "tessera.>", ">", "$JS.>"}) {
    const auto heard = voter.subscribe(subject, [](NatsMessage) {});
    EXPECT_NE(voter.refusal_of(subject), "") << subject;
  }
}

// A consumer delivers where its maker wants. What it brings into the log keeps its own subject, and is no record.
TEST_F(NatsPermissionsTest, AConsumerOfAVoterBringsNothingIntoTheLog) {
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

TEST_F(NatsPermissionsTest, WrongCredentialsAreTold) {
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

TEST_F(NatsPermissionsTest, AServerThatDoesNotAnswerIsTold) {
  NatsSettings nobody = settings("a");
  nobody.servers = {"nats://127.0.0.1:" + std::to_string(NatsServer::free_port())};
  EXPECT_EQ(error_text([&] { make_nats_engine(nobody, kHeader); }), "spsa.server: " + nobody.servers[0] +
                                                                        " does not answer (connection refused)\n" +
                                                                        "  scripts/start_nats starts one");
  const std::string there = settings("a").servers[0];
  nobody.servers.push_back(there);
  EXPECT_EQ(error_text([&] { make_nats_engine(nobody, kHeader); }), kNothingThrown) << "the second one answers";
}

TEST(NatsPermissions, TlsAsksBothSidesForCertificatesOfOneAuthority) {
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
