#include "steplog/nats_settings.h"

#include <gtest/gtest.h>

#include "steplog/nats_engine.h"
#include "support/error_text.h"

namespace tessera::test {
namespace {

NatsSettings settings() {
  NatsSettings settings;
  settings.name = "sst-2_b";
  settings.node = "a";
  return settings;
}

TEST(NatsSettings, NamesFollowFromRunAndNode) {
  const NatsNames names(settings());
  EXPECT_EQ(names.log, "tessera.sst-2_b.log");
  EXPECT_EQ(names.join, "tessera.sst-2_b.join.a");
  EXPECT_EQ(names.vote, "tessera.sst-2_b.vote.a");
  EXPECT_EQ(names.have, "tessera.sst-2_b.have.a");
  EXPECT_EQ(names.votes, "tessera.sst-2_b.vote.*");
  EXPECT_EQ(names.log_stream, "TESSERA_sst-2_b");
  EXPECT_EQ(names.join_stream, "TESSERA_sst-2_b_JOIN");
}

TEST(NatsSettings, TheSenderIsInTheSubjectOfThisRunAndKindAlone) {
  const NatsNames names(settings());
  EXPECT_EQ(names.sender("vote", "tessera.sst-2_b.vote.node-7"), "node-7");
  for (const std::string subject :
       {"tessera.sst-2_b.join.a", "tessera.other.vote.a", "tessera.sst-2_b.vote", "tessera.sst-2_b.vote.",
        "tessera.sst-2_b.vote.a.b", "tessera.sst-2_b.vote.*", "x.tessera.sst-2_b.vote.a", "tessera.sst-2_b.log"})
    EXPECT_EQ(names.sender("vote", subject), std::nullopt) << subject;
}

TEST(NatsSettings, AServerIsAHostAndAPort) {
  EXPECT_EQ(parse_server("nats://h:5").host, "h");
  EXPECT_EQ(parse_server("nats://h:5").port, "5");
  EXPECT_EQ(parse_server("tls://host.example").port, "4222");
  EXPECT_EQ(parse_server("nats://[::1]:77").host, "::1");
  EXPECT_EQ(parse_server("nats://[::1]:77").port, "77");
  for (const std::string server : {"", "h:4222", "http://h", "nats://", "nats://:4222", "nats://h:", "nats://h:x",
                                   "nats://h:123456", "nats://user:word@h:4222", "nats://h/x", "nats://[::1"})
    EXPECT_EQ(error_text([&] { parse_server(server); }),
              "spsa.server: \"" + server +
                  "\" is no server\n  write nats://HOST:PORT, or tls://HOST:PORT; passwords stand in the credentials "
                  "file");
}

TEST(NatsSettings, FaultsNameTheKey) {
  const auto fault = [](auto&& change) {
    NatsSettings changed = settings();
    change(changed);
    return error_text([&] { check(changed); });
  };
  EXPECT_EQ(fault([](NatsSettings&) {}), kNothingThrown);
  EXPECT_EQ(fault([](NatsSettings& s) { s.name = "a.b"; }),
            "spsa.name: \"a.b\" cannot be a name at the engine\n  use letters, digits, \"-\" and \"_\"");
  EXPECT_EQ(fault([](NatsSettings& s) { s.node = ""; }),
            "spsa.node: \"\" cannot be a name at the engine\n  use letters, digits, \"-\" and \"_\"");
  EXPECT_EQ(fault([](NatsSettings& s) { s.name = "run_JOIN"; }),
            "spsa.name: \"run_JOIN\" ends as the streams of joins do\n  choose another name");
  EXPECT_EQ(fault([](NatsSettings& s) { s.servers.clear(); }), "spsa.server: no server is named");
  EXPECT_EQ(fault([](NatsSettings& s) { s.tls_ca = s.tls_cert = "x"; }),
            "spsa.tls_key: is missing\n  a certificate and its key are given together, or neither");
  EXPECT_EQ(fault([](NatsSettings& s) { s.tls_cert = s.tls_key = "x"; }),
            "spsa.tls_ca: is missing\n  without the authority's certificate no server can be trusted");
}

TEST(NatsSettings, AProgramWithoutNatsSaysSo) {
  if (has_nats()) GTEST_SKIP() << "this program has NATS";
  EXPECT_EQ(error_text([] { make_nats_engine(settings(), "{}"); }),
            "spsa.transport: this trainer was built without NATS\n"
            "  install libnats-dev and build again, or use \"file\" or \"mpi\"");
}

}  // namespace
}  // namespace tessera::test
