#include "steplog/signature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/crc32.h"
#include "io/files.h"
#include "steplog/samples.h"
#include "support/error_text.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

using ::testing::HasSubstr;

RunId test_run() {
  RunId run;
  for (size_t i = 0; i < run.sha256.size(); ++i) run.sha256[i] = static_cast<std::byte>(i + 1);
  return run;
}

/// Everything that a record can hold.
Record full_round() {
  Record record;
  record.run = test_run().prefix();
  record.flags = kHasLosses | kChangesUnit | kHadConflict;
  record.round = record.seed_round = 258;
  record.index = 300;
  record.m = 2;
  record.lanes = 3;
  record.roster = {{2, true, 10}};
  record.present = {true, false, true};
  record.bytes = {0x31, 0xA5, 0x80, 0x7F};
  record.extra = {{256, 1.0f, {false, true, false}, {0x12, 0x13}}};
  record.losses = {0x3C00, 0x4000};
  return record;
}

// Pem of the key of RFC 8032, section 7.1, test 1, as OpenSSL writes it.
constexpr const char* kPem =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
    "-----END PRIVATE KEY-----\n";

TEST(Ed25519, GivesTheAnswersOfTheRfc) {
  struct Answer {
    const char* public_key;
    std::vector<std::byte> message;
    const char* signature;
  };
  const std::vector<Answer> answers{
      {"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", bytes_of({0x72}),
       "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
       "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
      {"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
       {},
       "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
       "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
      {"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", bytes_of({0xAF, 0x82}),
       "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
       "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"}};
  const std::vector<SigningKey> keys = rfc_keys();
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto& [public_key, message, signature] = answers[i];
    EXPECT_EQ(hex_text(keys[i].public_key()), public_key);
    EXPECT_EQ(parse_public_key(public_key), keys[i].public_key());
    const SignatureBytes made = keys[i].sign(message);
    EXPECT_EQ(hex_text(made), signature);
    EXPECT_TRUE(is_signature_of(keys[i].public_key(), message, made));
    EXPECT_FALSE(is_signature_of(keys[(i + 1) % 3].public_key(), message, made)) << "of another key";
  }
}

TEST(SigningKey, IsReadFromAPemFile) {
  const TemporaryFolder folder;
  write_text_file(folder / "key.pem", kPem);
  EXPECT_EQ(SigningKey::read(folder / "key.pem").public_key(), rfc_keys()[1].public_key());
}

TEST(SigningKey, OfAnotherKindOrUnreadableIsRefusedWithTheWayToMakeOne) {
  const TemporaryFolder folder;
  const auto refusal = [&](const std::string& text) {
    write_text_file(folder / "key.pem", text);
    return error_text([&] { SigningKey::read(folder / "key.pem"); });
  };
  const std::string hint = "openssl genpkey -algorithm ed25519 -out KEY.pem";
  EXPECT_THAT(refusal("no key"), ::testing::AllOf(HasSubstr("key.pem: holds no private key"), HasSubstr(hint)));
  EXPECT_THAT(refusal(std::string(kPem).substr(0, 60)), HasSubstr("holds no private key"));
  // X25519, whose keys are as long.
  EXPECT_THAT(refusal("-----BEGIN PRIVATE KEY-----\n"
                      "MC4CAQAwBQYDK2VuBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
                      "-----END PRIVATE KEY-----\n"),
              HasSubstr("the private key is no Ed25519 key"));
  EXPECT_THAT(error_text([&] { SigningKey::read(folder / "absent.pem"); }), HasSubstr("absent.pem"));
}

TEST(PublicKey, HasOneSpelling) {
  const std::string good = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
  for (const std::string& text :
       {good.substr(1), good + "0", "D" + good.substr(1), "g" + good.substr(1), std::string()})
    EXPECT_THAT(error_text([&] { parse_public_key(text); }), HasSubstr("is no public key")) << text;
}

TEST(SignedRecord, IsTheseBytes) {  // made by another implementation
  Record record;
  record.type = RecordType::end;
  record.flags = kHadConflict;
  record.run = test_run().prefix();
  record.round = record.seed_round = 7;
  record.index = 9;
  record.prev = 0x1122334455667788;
  const Bytes encoded = encode_signed(record, test_run(), rfc_keys()[1], 2);
  EXPECT_EQ(hex_text(encoded),
            "5453423101040c0001020304070000000700000009000000000000008877665544332211"
            "000000000000803f090000000000000000000000d6d691e5"
            "02"
            "b75cb6da888841510298dcc5e8cf045df3da8ee1de4d6f89a590c6adbc21bfa7"
            "867e6b09b1791cb7d7d5b6b19a519ab208230ceac776295a59921047e6127102");
}

TEST(SignedRecord, OfAnyTypeIsVerifiedAndComesBackAsItWas) {
  const std::vector<SigningKey> keys = rfc_keys();
  for (int type = 1; type <= 5; ++type) {
    Record record = full_round();
    if (type > 1) {
      record = {};
      record.type = static_cast<RecordType>(type);
      record.run = test_run().prefix();
      record.flags = kHadConflict;
    }
    const Bytes plain = encode(record), encoded = encode_signed(record, test_run(), keys[2], 7);
    EXPECT_EQ(encoded.size(), plain.size() + 65);
    const auto decoded = decode_record(encoded);
    ASSERT_TRUE(std::holds_alternative<Record>(decoded)) << std::get<Refusal>(decoded).rule;
    const Record& back = std::get<Record>(decoded);
    EXPECT_EQ(back.flags, record.flags | kIsSigned);
    EXPECT_EQ(back.signature->key, 7);
    EXPECT_EQ(encode(back), encoded);
    EXPECT_TRUE(is_signed_by(keys[2].public_key(), test_run(), back));
    EXPECT_FALSE(is_signed_by(keys[1].public_key(), test_run(), back));
    RunId other = test_run();
    other.sha256[31] ^= std::byte{1};  // its prefix is the same
    EXPECT_FALSE(is_signed_by(keys[2].public_key(), other, back)) << "moved to another run";
  }
}

TEST(SignedRecord, EveryTruncationAndEveryFlippedBitIsRefused) {
  const SigningKey key = std::move(rfc_keys()[0]);
  Record record = full_round();
  record.index = record.round = record.seed_round = 0;
  record.roster = {{0, true, 4}, {1, true, 5}, {2, true, 6}};
  record.extra.clear();
  const ChainRules rules({.run = test_run(), .stale_max = 2, .format = 2, .signers = {key.public_key()}});
  const Bytes good = encode_signed(record, test_run(), key, 0);
  const auto is_refused = [&](std::span<const std::byte> bytes) {
    const auto decoded = decode_record(bytes);
    return std::holds_alternative<Refusal>(decoded) || rules.refuses(std::get<Record>(decoded)).has_value();
  };
  ASSERT_FALSE(is_refused(good));
  for (size_t length = 0; length < good.size(); ++length) ASSERT_TRUE(is_refused(std::span(good).first(length)));
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes changed = good;
      changed[at] ^= static_cast<std::byte>(1 << bit);
      ASSERT_TRUE(is_refused(changed)) << at << ", bit " << bit;
      if (at >= good.size() - 69) continue;
      // With the right checksum: only the signature, or another rule, is left to tell.
      const size_t framed = good.size() - 65;
      const uint32_t crc = crc32c(std::span(changed).first(framed - 4));
      for (size_t i = 0; i < 4; ++i) changed[framed - 4 + i] = static_cast<std::byte>(crc >> (8 * i) & 0xFF);
      ASSERT_TRUE(is_refused(changed)) << at << ", bit " << bit << ", with its checksum";
    }
  }
}

}  // namespace
}  // namespace tessera::test
