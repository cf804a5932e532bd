#include "steplog/nats_reader.h"

#include <gtest/gtest.h>

namespace tessera::test {
namespace {

TEST(NatsReader, ADeliveryTellsItsNumbers) {
  const auto numbers = parse_delivery("$JS.ACK.TESSERA_run.C4a2s10n.1.4712.17.1796067908290031773.3");
  ASSERT_TRUE(numbers);
  EXPECT_EQ(numbers->sequence, 4712u);
  EXPECT_EQ(numbers->delivery, 17u);
  EXPECT_EQ(numbers->pending, 3u);
}

TEST(NatsReader, ADeliveryOfANewerServerHasADomainAndAnAccount) {
  for (const std::string more : {"", ".random", ".random.more"}) {
    const auto numbers =
        parse_delivery("$JS.ACK.hub.ACCOUNT.TESSERA_run.C4a2s10n.1.4712.17.1796067908290031773.3" + more);
    ASSERT_TRUE(numbers) << more;
    EXPECT_EQ(numbers->sequence, 4712u);
    EXPECT_EQ(numbers->delivery, 17u);
    EXPECT_EQ(numbers->pending, 3u);
  }
}

TEST(NatsReader, AnythingElseIsNoDelivery) {
  for (const std::string reply :
       {"", "$JS.ACK", "_INBOX.x.1.2.3.4.5.6.7", "$JS.ACK.s.c.1.2.3.4", "$JS.ACK.s.c.1.x.3.4.5",
        "$JS.ACK.s.c.1.2.-3.4.5", "$JS.ACK.s.c.1.2..4.5", "$JS.ACK.s.c.1.99999999999999999999.3.4.5"})
    EXPECT_FALSE(parse_delivery(reply)) << reply;
}

}  // namespace
}  // namespace tessera::test
