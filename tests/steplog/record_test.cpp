#include "steplog/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "core/crc32.h"
#include "steplog/samples.h"

namespace tessera::test {
namespace {

std::string rule_of(std::span<const std::byte> bytes) {
  const auto decoded = decode_record(bytes);
  const auto* refusal = std::get_if<Refusal>(&decoded);
  return refusal ? refusal->rule : "none";
}

/// Puts the right checksum at the end.
Bytes sealed(Bytes bytes) {
  const uint32_t crc = crc32c(std::span(bytes).first(bytes.size() - 4));
  for (size_t i = 0; i < 4; ++i) bytes[bytes.size() - 4 + i] = static_cast<std::byte>(crc >> (8 * i) & 0xFF);
  return bytes;
}

std::vector<bool> random_bits(Dice& dice, size_t count) {
  std::vector<bool> bits(count);
  for (size_t i = 0; i < count; ++i) bits[i] = dice.coin();
  return bits;
}

size_t count(const std::vector<bool>& bits) { return static_cast<size_t>(std::count(bits.begin(), bits.end(), true)); }

Record random_record(Dice& dice) {
  Record record;
  record.type = static_cast<RecordType>(dice.coin() ? 1 : 1 + dice.below(5));
  record.run = static_cast<uint32_t>(dice.next());
  record.round = static_cast<uint32_t>(dice.next());
  record.seed_round = static_cast<uint32_t>(dice.next());
  record.index = dice.next();
  record.prev = dice.next();
  record.alpha = std::bit_cast<float>(static_cast<uint32_t>(dice.next()));
  record.mul = std::bit_cast<float>(static_cast<uint32_t>(dice.next()));
  record.unit_exp = static_cast<int8_t>(dice.next());
  if (dice.below(4) == 0) record.flags |= kHadConflict;
  if (dice.below(4) == 0) {
    record.flags |= kIsSigned;
    record.signature = Signature{static_cast<uint8_t>(dice.next()), {}};
    for (std::byte& byte : record.signature->bytes) byte = static_cast<std::byte>(dice.next());
  }
  if (record.type == RecordType::digest) record.machine = static_cast<uint32_t>(dice.next());
  if (record.type == RecordType::digest || record.type == RecordType::snapshot)
    record.digest = {dice.next(), dice.next()};
  if (record.type == RecordType::snapshot) {
    for (std::byte& byte : record.sha256) byte = static_cast<std::byte>(dice.next());
    record.file_bytes = dice.next();
  }
  if (record.type != RecordType::round) return record;
  record.flags |= static_cast<uint16_t>(dice.below(4));
  record.lanes = static_cast<uint16_t>(dice.below(40));
  record.m = static_cast<uint8_t>(1 + dice.below(20));
  for (uint64_t i = dice.below(4); i > 0; --i)
    record.roster.push_back(
        {static_cast<uint32_t>(dice.below(65536)), dice.coin(), static_cast<uint32_t>(dice.next())});
  record.present = random_bits(dice, record.lanes);
  record.bytes = dice.bytes(count(record.present) * record.m);
  for (uint64_t i = dice.below(3); i > 0; --i) {
    ExtraGroup group;
    group.seed_round = static_cast<uint32_t>(dice.next());
    group.alpha = std::bit_cast<float>(static_cast<uint32_t>(dice.next()));
    group.present = random_bits(dice, record.lanes);
    group.bytes = dice.bytes(count(group.present) * record.m);
    record.extra.push_back(group);
  }
  if (record.flags & 1)
    for (size_t i = 0; i < count(record.present); ++i) record.losses.push_back(static_cast<uint16_t>(dice.next()));
  return record;
}

/// Three lanes of two bytes, a machine joining, one late vote, losses.
Record sample() {
  Record record;
  record.flags = 3;
  record.run = 0x04030201;
  record.round = 258;
  record.seed_round = 257;
  record.index = 300;
  record.prev = 0x1122334455667788;
  record.alpha = -1;
  record.mul = 0.5f;
  record.unit_exp = -2;
  record.m = 2;
  record.lanes = 3;
  record.roster = {{200, false, 9}, {2, true, 10}};
  record.present = {true, false, true};
  record.bytes = {0x31, 0xA5, 0x80, 0x7F};
  record.extra = {{256, 1.0f, {false, true, false}, {0x12, 0x13}}};
  record.losses = {0x3C00, 0x4000};
  return record;
}

TEST(Record, IsTheseBytes) {
  const Bytes expected =
      bytes_of({'T',  'S',  'B',  '1',  1,    1,    3,    0,                          // magic, version, type, flags
                1,    2,    3,    4,    2,    1,    0,    0,    1,    1,    0,    0,  // 8: run, round, seed round
                0x2C, 1,    0,    0,    0,    0,    0,    0,                          // 20: index
                0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,                       // 28: prev
                0,    0,    0x80, 0xBF, 0,    0,    0,    0x3F,                       // 36: alpha, mul
                0xFE, 2,    3,    0,                                                  // 44: unit_exp, m, lanes
                13,   0,    1,    0,                                                  // 48: roster bytes, extra groups
                33,   0,    0,    0,                                                  // 52: body bytes
                0xC8, 1,    0,    9,    0,    0,    0,    2,    1,    10,   0,    0, 0,  // 56: roster
                0x05, 0x31, 0xA5, 0x80, 0x7F,                                            // who is present, their bytes
                0,    1,    0,    0,    0,    0,    0x80, 0x3F, 0x02, 0x12, 0x13,        // extra group
                0x00, 0x3C, 0x00, 0x40,                                                  // losses
                0,    0,    0,    0});                                                   // CRC
  EXPECT_EQ(encode(sample()), sealed(expected));
}

TEST(Record, OfSixteenMachinesAndSixteenProbesTakes318Bytes) {
  Record record;
  record.m = record.lanes = 16;
  record.present.assign(16, true);
  record.bytes.assign(256, 0x31);
  EXPECT_EQ(encode(record).size(), 318u);
}

TEST(Record, OfOtherTypesHasItsOwnBody) {
  Record record;
  record.type = RecordType::snapshot;
  record.digest = {1, 2};
  record.sha256[31] = std::byte{7};
  record.file_bytes = 3;
  Bytes encoded = encode(record);
  ASSERT_EQ(encoded.size(), 60u + 56);
  EXPECT_EQ(encoded[56 + 47], std::byte{7});
  EXPECT_EQ(encoded[56 + 48], std::byte{3});
  record.type = RecordType::digest;
  record.machine = 9;
  encoded = encode(record);
  ASSERT_EQ(encoded.size(), 60u + 20);
  EXPECT_EQ(encoded[56], std::byte{9});
  record.type = RecordType::end;
  EXPECT_EQ(encode(record).size(), 60u);
  record.type = RecordType::reseed;
  EXPECT_EQ(encode(record).size(), 60u);
}

TEST(Record, ComesBackAsItWas) {
  Dice dice(21);
  for (int i = 0; i < 3000; ++i) {
    const Record record = random_record(dice);
    const Bytes encoded = encode(record);
    const auto decoded = decode_record(encoded);
    ASSERT_TRUE(std::holds_alternative<Record>(decoded)) << i << ": " << std::get<Refusal>(decoded).rule;
    const Record& back = std::get<Record>(decoded);
    ASSERT_EQ(back.type, record.type);
    ASSERT_EQ(back.index, record.index);
    ASSERT_EQ(back.present, record.present);
    ASSERT_EQ(back.bytes, record.bytes);
    ASSERT_EQ(back.losses, record.losses);
    ASSERT_EQ(back.extra.size(), record.extra.size());
    ASSERT_EQ(back.digest, record.digest);
    ASSERT_EQ(back.sha256, record.sha256);
    ASSERT_EQ(back.machine, record.machine);
    ASSERT_EQ(back.signature, record.signature);
    ASSERT_EQ(encode(back), encoded) << "and so does every other field, NaNs too";
  }
}

TEST(Record, EachBrokenRuleOfFormIsNamed) {
  const Bytes good = encode(sample());
  const auto with = [&](size_t at, int value) {
    Bytes bytes = good;
    bytes[at] = static_cast<std::byte>(value);
    return rule_of(sealed(bytes));
  };
  EXPECT_EQ(rule_of(good), "none");
  EXPECT_EQ(with(0, 'X'), "magic");
  EXPECT_EQ(with(4, 2), "version");
  EXPECT_EQ(with(5, 0), "type");
  EXPECT_EQ(with(5, 6), "type");
  EXPECT_EQ(with(5, 4), "head");  // an END with lanes
  EXPECT_EQ(with(6, 16), "flags");
  EXPECT_EQ(with(7, 1), "flags");
  EXPECT_EQ(with(6, 7), "flags");   // signed, and no signature follows
  EXPECT_EQ(with(6, 0), "length");  // losses that no flag announces
  EXPECT_EQ(with(45, 0), "m");
  EXPECT_EQ(with(45, 200), "length");   // more bytes than there are
  EXPECT_EQ(with(47, 0xFF), "length");  // 65,283 lanes
  EXPECT_EQ(with(48, 12), "length");    // a roster change cut off
  EXPECT_EQ(with(50, 2), "length");
  EXPECT_EQ(with(51, 0xFF), "length");
  EXPECT_EQ(with(52, 34), "length");
  EXPECT_EQ(with(55, 0xFF), "length");
  EXPECT_EQ(with(56 + 2, 2), "roster");
  EXPECT_EQ(with(56 + 1, 0x80), "varint");
  EXPECT_EQ(with(56 + 13, 0x0D), "bitmap");  // lane 3 of 3
  Bytes longer(good.begin(), good.end() - 4);
  longer.insert(longer.end(), 5, std::byte{0});
  EXPECT_EQ(rule_of(sealed(longer)), "length");
  longer[52] = std::byte{34};
  EXPECT_EQ(rule_of(sealed(longer)), "length");  // trailing bytes in the body
  Bytes changed = good;
  changed[70] ^= std::byte{1};
  EXPECT_EQ(rule_of(changed), "crc");
}

TEST(Record, ALaneBeyondSixteenBitsIsRefused) {
  Record record = sample();
  record.roster = {{70'000, true, 1}};
  EXPECT_EQ(rule_of(encode(record)), "lane");
}

TEST(Record, ASignatureStandsBehindTheChecksum) {
  Record record = sample();
  const Bytes plain = encode(record);
  record.flags |= kIsSigned;
  record.signature = Signature{3, {}};
  record.signature->bytes[63] = std::byte{9};
  const Bytes encoded = encode(record);
  ASSERT_EQ(encoded.size(), plain.size() + 65);
  EXPECT_EQ(encoded[plain.size()], std::byte{3});
  EXPECT_EQ(encoded.back(), std::byte{9});
  const auto head = std::span(encoded).first(plain.size());
  Bytes flagged = plain;
  flagged[6] = std::byte{7};
  EXPECT_EQ(Bytes(head.begin(), head.end()), sealed(flagged)) << "the head tells the body's bytes alone";
  EXPECT_EQ(rule_of(head), "flags");
  Bytes unannounced = plain;
  unannounced.resize(plain.size() + 65);
  EXPECT_EQ(rule_of(unannounced), "length");
}

TEST(Record, EveryTruncationAndEveryChangedByteIsRefused) {
  Dice dice(22);
  for (int i = 0; i < 12; ++i) {
    const Record record = i == 0 ? sample() : random_record(dice);
    const Bytes good = encode(record);
    for (size_t length = 0; length < good.size(); ++length)
      ASSERT_NE(rule_of(std::span(good).first(length)), "none") << length;
    // A signature is judged by the rules of the chain.
    for (size_t at = 0; at < good.size() - (record.signature ? 65 : 0); ++at)
      for (int to = 0; to < 256; ++to) {
        Bytes changed = good;
        changed[at] = static_cast<std::byte>(to);
        if (changed == good) continue;
        ASSERT_NE(rule_of(changed), "none") << at;
      }
  }
}

TEST(Record, MutationsWithARightChecksumAreRefusedOrWellFormed) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed);
    for (int i = 0; i < 8000; ++i) {
      Bytes bytes = encode(random_record(dice));
      for (uint64_t changes = 1 + dice.below(4); changes > 0; --changes)
        bytes[dice.below(bytes.size())] = static_cast<std::byte>(dice.next());
      if (dice.below(4) == 0) bytes.resize(4 + dice.below(bytes.size() + 20));
      bytes = sealed(bytes);
      const auto decoded = decode_record(bytes);
      if (std::holds_alternative<Refusal>(decoded)) continue;
      ASSERT_EQ(encode(std::get<Record>(decoded)), bytes);
    }
  }
}

TEST(Record, GarbageIsRefused) {
  Dice dice(23);
  for (int i = 0; i < 50'000; ++i) {
    Bytes bytes(dice.below(200));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(dice.next());
    ASSERT_NE(rule_of(bytes), "none");
  }
}

}  // namespace
}  // namespace tessera::test
