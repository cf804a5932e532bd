#include "steplog/control_message.h"

#include <gtest/gtest.h>

#include "core/crc32.h"
#include "io/files.h"
#include "steplog/samples.h"

namespace tessera::test {
namespace {

using Kind = RosterRequest::Kind;

std::string rule_of(std::span<const std::byte> message) {
  const auto decoded = decode_control_message(message);
  const auto* refusal = std::get_if<Refusal>(&decoded);
  return refusal ? refusal->rule : "none";
}

Bytes sealed(Bytes message) {
  const uint32_t crc = crc32c(std::span(message).first(message.size() - 2));
  message[message.size() - 2] = static_cast<std::byte>(crc & 0xFF);
  message[message.size() - 1] = static_cast<std::byte>(crc >> 8 & 0xFF);
  return message;
}

const ControlMessage kJoin = RosterRequest{Kind::join, 0x11223344, 0x01020304};
const ControlMessage kHave = HaveRecords{0x11223344, 4711, 0x0123456789ABCDEF};

ControlMessage random_message(Dice& dice) {
  const auto run = static_cast<uint32_t>(dice.next());
  if (dice.coin()) return HaveRecords{run, dice.next(), dice.next()};
  return RosterRequest{dice.coin() ? Kind::join : Kind::leave, run, static_cast<uint32_t>(dice.next())};
}

TEST(ControlMessage, IsTheseBytes) {
  EXPECT_EQ(hex_text(encode(kJoin)), "544a010144332211040302018530");
  EXPECT_EQ(hex_text(encode(kHave)), "54480100443322116712000000000000efcdab8967452301cc6f");
  const Bytes leave = encode(ControlMessage{RosterRequest{Kind::leave, 0x11223344, 0x01020304}});
  EXPECT_EQ(hex_text(leave).substr(0, 24), "544a01024433221104030201") << "a LEAVE differs in its kind";
  EXPECT_EQ(leave, sealed(leave));
}

TEST(ControlMessage, ComesBackAsItWas) {
  Dice dice(21);
  for (int i = 0; i < 2000; ++i) {
    const ControlMessage message = random_message(dice);
    const auto decoded = decode_control_message(encode(message));
    ASSERT_TRUE(std::holds_alternative<ControlMessage>(decoded)) << i;
    ASSERT_EQ(std::get<ControlMessage>(decoded), message);
  }
}

TEST(ControlMessage, EachBrokenRuleIsNamed) {
  const auto with = [](const ControlMessage& message, size_t at, int value) {
    Bytes bytes = encode(message);
    bytes[at] = static_cast<std::byte>(value);
    return rule_of(sealed(bytes));
  };
  EXPECT_EQ(rule_of(encode(kJoin)), "none");
  EXPECT_EQ(rule_of({}), "length");
  EXPECT_EQ(with(kJoin, 0, 0x55), "magic");
  EXPECT_EQ(with(kJoin, 1, 0x56), "magic") << "of a vote";
  EXPECT_EQ(with(kJoin, 2, 2), "version");
  EXPECT_EQ(with(kJoin, 3, 0), "kind");
  EXPECT_EQ(with(kJoin, 3, 3), "kind");
  EXPECT_EQ(with(kHave, 3, 1), "kind");
  EXPECT_EQ(with(kJoin, 1, 0x48), "kind") << "a JOIN's kind is none of a HAVE";
  EXPECT_EQ(with(kHave, 2, 0), "version");
  for (const ControlMessage& message : {kJoin, kHave}) {
    Bytes longer = encode(message);
    longer.push_back(std::byte{0});
    EXPECT_EQ(rule_of(longer), "length");
    Bytes changed = encode(message);
    changed[9] ^= std::byte{1};
    EXPECT_EQ(rule_of(changed), "crc");
  }
}

TEST(ControlMessage, EveryTruncationIsRefused) {
  for (const ControlMessage& message : {kJoin, kHave}) {
    const Bytes bytes = encode(message);
    for (size_t length = 0; length < bytes.size(); ++length)
      ASSERT_EQ(rule_of(std::span(bytes).first(length)), "length") << length;
  }
}

// CRC-32C finds every change of up to three bits in so few bytes; its lower half alone has no such promise, so that one
// bit is all that is asked for.
TEST(ControlMessage, EveryFlippedBitIsRefused) {
  Dice dice(22);
  for (int i = 0; i < 200; ++i) {
    const Bytes message = encode(random_message(dice));
    for (size_t bit = 0; bit < message.size() * 8; ++bit) {
      Bytes changed = message;
      changed[bit / 8] ^= std::byte{1} << (bit % 8);
      ASSERT_NE(rule_of(changed), "none") << "bit " << bit;
    }
  }
}

TEST(ControlMessage, GarbageIsRefusedOrWellFormed) {
  Dice dice(23);
  int accepted = 0;
  for (int i = 0; i < 50'000; ++i) {
    Bytes message(dice.below(40));
    for (std::byte& byte : message) byte = static_cast<std::byte>(dice.next());
    if (message.size() >= 14 && dice.coin()) {  // past the first checks
      const bool have = dice.coin();
      message.resize(have ? 26 : 14);
      message[0] = std::byte{0x54}, message[1] = std::byte{uint8_t(have ? 0x48 : 0x4A)}, message[2] = std::byte{1};
      message[3] = std::byte{uint8_t(have ? 0 : 1 + dice.below(2))};
      message = sealed(message);
    }
    const auto decoded = decode_control_message(message);
    if (std::holds_alternative<Refusal>(decoded)) continue;
    ++accepted;
    ASSERT_EQ(encode(std::get<ControlMessage>(decoded)), message);
  }
  EXPECT_GT(accepted, 10'000) << "half of the long ones are well formed";
}

}  // namespace
}  // namespace tessera::test
