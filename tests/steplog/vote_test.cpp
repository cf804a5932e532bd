#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "core/crc32.h"
#include "steplog/record.h"
#include "steplog/samples.h"

namespace tessera::test {
namespace {

std::string rule_of(std::span<const std::byte> message) {
  const auto decoded = decode_vote_message(message);
  const auto* refusal = std::get_if<Refusal>(&decoded);
  return refusal ? refusal->rule : "none";
}

/// Puts the right checksum at the end.
Bytes sealed(Bytes message) {
  const uint32_t crc = crc32c(std::span(message).first(message.size() - 2));
  message[message.size() - 2] = static_cast<std::byte>(crc & 0xFF);
  message[message.size() - 1] = static_cast<std::byte>(crc >> 8 & 0xFF);
  return message;
}

Vote random_vote(Dice& dice) {
  Vote vote;
  vote.run = static_cast<uint32_t>(dice.next());
  vote.seed_round = static_cast<uint32_t>(dice.next());
  vote.machine = static_cast<uint32_t>(dice.next());
  vote.lag = static_cast<uint8_t>(dice.below(16));
  vote.stop = dice.coin();
  vote.bytes = dice.bytes(1 + dice.below(255));
  if (dice.coin()) vote.loss = static_cast<uint16_t>(dice.next());
  if (dice.coin())
    vote.offer = Vote::Offer{std::bit_cast<float>(static_cast<uint32_t>(dice.next())),
                             std::bit_cast<float>(static_cast<uint32_t>(dice.next()))};
  if (dice.coin()) vote.digest = {dice.next(), dice.next()};
  return vote;
}

size_t optional_bytes(const Vote& vote) { return (vote.loss ? 2 : 0) + (vote.offer ? 8 : 0) + (vote.digest ? 16 : 0); }

TEST(Vote, IsTheseBytes) {
  Vote vote;
  vote.run = 0x04030201;
  vote.seed_round = 0x14131211;
  vote.machine = 5;
  vote.lag = 2;
  vote.stop = true;
  vote.bytes = {0x31, 0x80, 0xA5};
  vote.loss = 0x3C00;
  vote.offer = Vote::Offer{1.0f, 0.5f};
  vote.digest = {0x1122334455667788, 1};
  const Bytes expected =
      bytes_of({0x54, 0x56, 1,    0x2F,                                      // magic, version, lag 2 and all four flags
                1,    2,    3,    4,    0x11, 0x12, 0x13, 0x14, 5, 0, 0, 0,  // run, seed round, machine
                3,    0x31, 0x80, 0xA5,                                      // m bytes
                0x00, 0x3C,                                                  // loss
                0,    0,    0x80, 0x3F, 0,    0,    0,    0x3F,              // offer
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0});  // checksum
  EXPECT_EQ(encode(vote), sealed(expected));
}

TEST(Vote, CostsNineteenBytesAndOneAProbe) {
  for (size_t m : {1, 16, 255}) {
    Vote vote;
    vote.bytes.assign(m, 0x7F);
    EXPECT_EQ(encode(vote).size(), 19 + m);
  }
}

TEST(Vote, ComesBackAsItWas) {
  Dice dice(11);
  for (int i = 0; i < 2000; ++i) {
    const Vote vote = random_vote(dice);
    const Bytes message = encode(vote);
    ASSERT_EQ(message.size(), 19 + vote.bytes.size() + optional_bytes(vote));
    const auto decoded = decode_vote_message(message);
    ASSERT_TRUE(std::holds_alternative<Vote>(decoded)) << i;
    const Vote& back = std::get<Vote>(decoded);
    ASSERT_EQ(back.bytes, vote.bytes);
    ASSERT_EQ(back.loss, vote.loss);
    ASSERT_EQ(back.digest, vote.digest);
    ASSERT_EQ(back.stop, vote.stop);
    ASSERT_EQ(back.lag, vote.lag);
    ASSERT_EQ(back.offer.has_value(), vote.offer.has_value());
    ASSERT_EQ(encode(back), message) << "NaNs of an offer keep their bits";
  }
}

TEST(Vote, SaturatedAndInvalidBytesComeBack) {
  Vote vote;
  vote.bytes = {0x7F, 0xFF, 0x80, 0x00};
  vote.loss = 0x7C00;  // infinite
  vote.offer = Vote::Offer{std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  EXPECT_EQ(encode(std::get<Vote>(decode_vote_message(encode(vote)))), encode(vote));
}

TEST(Vote, EachBrokenRuleIsNamed) {
  Vote vote;
  vote.bytes = {1, 2, 3};
  const Bytes good = encode(vote);
  const auto with = [&](size_t at, int value) {
    Bytes bytes = good;
    bytes[at] = static_cast<std::byte>(value);
    return rule_of(sealed(bytes));
  };
  EXPECT_EQ(rule_of(good), "none");
  EXPECT_EQ(with(0, 0x55), "magic");
  EXPECT_EQ(with(2, 2), "version");
  EXPECT_EQ(with(3, 1), "length");   // a loss that is not there
  EXPECT_EQ(with(16, 4), "length");  // one byte more than there are
  EXPECT_EQ(with(16, 0), "m");
  EXPECT_EQ(rule_of({}), "length");
  Bytes longer = good;
  longer.push_back(std::byte{0});
  EXPECT_EQ(rule_of(longer), "length");
  Bytes changed = good;
  changed[17] ^= std::byte{1};
  EXPECT_EQ(rule_of(changed), "crc");
}

TEST(Vote, EveryTruncationIsRefused) {
  Dice dice(12);
  for (int i = 0; i < 20; ++i) {
    const Bytes message = encode(random_vote(dice));
    for (size_t length = 0; length < message.size(); ++length)
      ASSERT_NE(rule_of(std::span(message).first(length)), "none");
  }
}

// Sixteen bits of checksum: one change in 65,536 goes unseen, and what is read then is a well-formed vote all the same.
TEST(Vote, ChangedBytesAreRefusedButForTheChecksumsOddChance) {
  Dice dice(13);
  int64_t changes = 0, unseen = 0;
  for (int i = 0; i < 10; ++i) {
    const Bytes message = encode(random_vote(dice));
    for (size_t at = 0; at < message.size(); ++at)
      for (int to = 0; to < 256; ++to) {
        Bytes changed = message;
        if (changed[at] == static_cast<std::byte>(to)) continue;
        changed[at] = static_cast<std::byte>(to);
        ++changes;
        const auto decoded = decode_vote_message(changed);
        if (!std::holds_alternative<Vote>(decoded)) continue;
        ++unseen;
        ASSERT_EQ(encode(std::get<Vote>(decoded)), changed);
      }
  }
  EXPECT_LT(unseen * 65536, changes * 4) << unseen << " of " << changes;
}

TEST(Vote, GarbageIsRefusedOrWellFormed) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed);
    for (int i = 0; i < 20'000; ++i) {
      Bytes message(2 + dice.below(80));
      for (std::byte& byte : message) byte = static_cast<std::byte>(dice.next());
      if (message.size() >= 19 && dice.coin()) {  // past the first checks
        message[0] = std::byte{0x54}, message[1] = std::byte{0x56}, message[2] = std::byte{1};
        message[16] = static_cast<std::byte>(message.size() - 19);
        message[3] &= std::byte{0xF8};
        message = sealed(message);
      }
      const auto decoded = decode_vote_message(message);
      if (std::holds_alternative<Refusal>(decoded)) continue;
      ASSERT_EQ(encode(std::get<Vote>(decoded)), message);
    }
  }
}

}  // namespace
}  // namespace tessera::test
