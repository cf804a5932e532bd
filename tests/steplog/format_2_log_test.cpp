// Logs whose header is of format 2: what it says about records is what every reader judges by.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "io/files.h"
#include "steplog/step_log_samples.h"
#include "support/error_text.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

struct Header {
  std::string alpha_max = "\"4090000000000000\"";  // 1024
  std::string stale_max = "2", unit = "9";
  std::vector<std::string> signers{};
  std::string text() const {
    std::string list;
    for (const std::string& key : signers) list += (list.empty() ? "\"" : ", \"") + key + "\"";
    return "{\"alpha_max\": " + alpha_max + ", \"format\": 2, \"signers\": [" + list +
           "], \"stale_max\": " + stale_max + ", \"unit\": " + unit + "}";
  }
};

std::vector<std::string> rfc_signers() {
  std::vector<std::string> all;
  for (const PublicKey& key : public_keys(rfc_keys())) all.push_back(hex_text(key));
  return all;
}

/// A log of four machines whose records are signed. Each round the fourth is absent and its vote comes a round later.
class Format2Log : public ::testing::Test {
 protected:
  Format2Log() : log_(StepLog::create(folder_ / "log", header_.text(), {.segment_bytes = 1000})), chain_(log_.run()) {
    chain_.rules = log_.chain();
  }
  Record next() {
    Record record = log_.size() == 0 ? chain_.first_round(4) : chain_.round();
    record.present[3] = false;
    record.bytes.resize(12);
    if (record.round > 0) record.extra = {{record.round - 1, -1, {false, false, false, true}, chain_.dice.bytes(4)}};
    return record;
  }
  void append(const Record& record) {
    log_.append(chain_.add_signed(record, keys_[1], 1));
    records_.push_back(encode_signed(record, log_.run(), keys_[1], 1));
  }
  void go_on(int rounds) {
    for (int i = 0; i < rounds; ++i) append(next());
  }

  const TemporaryFolder folder_;
  const std::vector<SigningKey> keys_ = rfc_keys();
  const Header header_{.signers = rfc_signers()};
  StepLog log_;
  Chain chain_;
  std::vector<Bytes> records_;
};

TEST_F(Format2Log, TheHeaderSaysWhatItsRecordsMustSatisfy) {
  go_on(3);
  const auto refusal = [&](const Record& record, const SigningKey& key, uint8_t place) {
    return error_text([&] { log_.append(encode_signed(record, log_.run(), key, place)); });
  };
  EXPECT_THAT(error_text([&] { log_.append(encode(next())); }), HasSubstr("record 3 breaks the rule \"signature\""));
  EXPECT_THAT(refusal(next(), keys_[0], 1), HasSubstr("breaks the rule \"signature\""));
  Record record = next();
  record.alpha = -1025;
  EXPECT_THAT(refusal(record, keys_[0], 0), HasSubstr("breaks the rule \"alpha\""));
  record = next();
  record.extra = {{0, -1, {false, false, false, true}, {1, 2, 3, 4}}};
  EXPECT_THAT(refusal(record, keys_[0], 0), HasSubstr("breaks the rule \"stale\""));
  record = next();
  record.unit_exp = 31;
  EXPECT_THAT(refusal(record, keys_[0], 0), HasSubstr("breaks the rule \"unit\""));
  EXPECT_EQ(log_.size(), 3u);
  append(next());
  EXPECT_EQ(records_of(log_), records_);
}

TEST_F(Format2Log, TheHeadersWordCountsForReadersWithOtherLimits) {
  go_on(3);
  ChainRules::Limits loose;
  loose.stale_max = 1000;
  const StepLog reader = StepLog::open(folder_ / "log", {.access = StepLog::Access::read, .limits = loose});
  EXPECT_EQ(reader.chain().rounds().stale_max(), 2);
  EXPECT_EQ(reader.chain().rounds(), log_.chain().rounds());
}

TEST_F(Format2Log, ComesBackFromArchivesAndGoesOnBehindDroppedRecords) {
  go_on(9);
  Record record = next();
  record.unit_exp = 12;  // announced by record 9, for rounds 12 on
  append(record);
  log_.new_segment();
  log_.compact(log_.size(), StepLog::Compaction::archive);
  EXPECT_THAT(files_in(folder_ / "log"), Contains("00000000.tsa"));
  EXPECT_EQ(records_of(log_), records_);
  log_.compact(log_.size(), StepLog::Compaction::drop);
  EXPECT_EQ(log_.first_index(), 10u);
  // What start.tsc says: lane 3 of round 8 stands in record 9, and the unit waits.
  record = next();
  record.extra.push_back(record.extra[0]);
  record.extra[0].seed_round = 8;
  EXPECT_THAT(error_text([&] { log_.append(encode_signed(record, log_.run(), keys_[0], 0)); }),
              HasSubstr("breaks the rule \"twice\""));
  record = next();
  record.unit_exp = 13;
  EXPECT_THAT(error_text([&] { log_.append(encode_signed(record, log_.run(), keys_[0], 0)); }),
              HasSubstr("breaks the rule \"unit\""));
  go_on(5);
  EXPECT_EQ(records_of(log_, 10), std::vector<Bytes>(records_.begin() + 10, records_.end()));
  const StepLog again = StepLog::open(folder_ / "log", {.access = StepLog::Access::read});
  EXPECT_EQ(again.chain().rounds(), chain_.rules.rounds());
  EXPECT_EQ(again.chain().rounds().unit(), 12);
}

TEST_F(Format2Log, ASignatureThatWasTornIsCutOffAndOneThatWasChangedIsDamage) {
  go_on(2);
  const auto file = folder_ / "log/00000000.tsb";
  const std::string good = read_text_file(file);
  for (const size_t cut : {1, 64, 65, 66}) {
    const TemporaryFolder copy;
    write_text_file(copy / "header.json", header_.text());
    write_text_file(copy / "00000000.tsb", good.substr(0, good.size() - cut));
    const StepLog mended = StepLog::open(copy.path(), {});
    EXPECT_EQ(mended.size(), 1u);
    EXPECT_THAT(mended.notices(), Contains(HasSubstr("of a torn record off 00000000.tsb"))) << cut;
  }
  const TemporaryFolder copy;
  write_text_file(copy / "header.json", header_.text());
  std::string changed = good;
  changed.back() = static_cast<char>(changed.back() ^ 1);
  write_text_file(copy / "00000000.tsb", changed);
  EXPECT_THAT(error_text([&] { StepLog::open(copy.path(), {}); }), HasSubstr("record 1 is damaged (signature: "));
}

TEST(Format2Header, OfANewerFormatIsRefusedByItsNumber) {
  const TemporaryFolder folder;
  write_text_file(folder / "header.json", R"({"format": 3})");
  EXPECT_THAT(error_text([&] { StepLog::open(folder.path(), {.access = StepLog::Access::read}); }),
              HasSubstr("header.json: the log has format 3, this program reads 1 and 2\n"));
}

TEST(Format2Header, IsRefusedWhereItSaysWhatCannotBe) {
  const TemporaryFolder folder;
  const auto refusal = [&](const Header& header) {
    write_text_file(folder / "header.json", header.text());
    return error_text([&] { StepLog::open(folder.path(), {.access = StepLog::Access::read}); });
  };
  EXPECT_EQ(refusal({}), kNothingThrown);
  EXPECT_THAT(refusal({.unit = "31"}), HasSubstr("header.json: \"unit\" is 31, it must be -20 to 30"));
  EXPECT_THAT(refusal({.stale_max = "16"}), HasSubstr("\"stale_max\" is 16, it must be 0 to 15"));
  EXPECT_THAT(refusal({.alpha_max = "\"7ff0000000000000\""}), HasSubstr("\"alpha_max\" is inf"));
  EXPECT_THAT(refusal({.alpha_max = "\"-1\""}), HasSubstr("not the hexadecimal of 64 bits"));
  std::vector<std::string> keys = rfc_signers();
  EXPECT_EQ(refusal({.signers = keys}), kNothingThrown);
  std::swap(keys[0], keys[1]);
  EXPECT_THAT(refusal({.signers = keys}), HasSubstr("\"signers\" do not ascend"));
  keys[0] = keys[1];
  EXPECT_THAT(refusal({.signers = keys}), HasSubstr("one stands there twice"));
  EXPECT_THAT(refusal({.signers = {"abc"}}), HasSubstr("header.json: \"abc\" is no public key"));
}

}  // namespace
}  // namespace tessera::test
