#include "steplog/archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/crc32.h"
#include "core/error.h"
#include "steplog/samples.h"
#include "steplog/step_log.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

/// A chain with everything in it: machines that come and go, absent lanes, late votes, losses, changes of m, unit and
/// decay, and records of every type.
std::vector<Bytes> varied_chain(uint64_t seed, size_t count, Chain& chain) {
  Dice dice(seed);
  std::vector<Bytes> records;
  uint32_t fresh = 5;
  for (size_t i = 0; i < count; ++i) {
    if (i % 7 == 3) {
      Record record = chain.next(static_cast<RecordType>(2 + dice.below(2)));
      record.round = static_cast<uint32_t>(dice.below(chain.rules.next_round() + 1));
      record.digest = {dice.next(), dice.next()};
      if (record.type == RecordType::digest) record.machine = 3;
      records.push_back(chain.add(record));
      continue;
    }
    Record record = i == 0 ? chain.first_round(5) : chain.round(static_cast<uint8_t>(i < count / 2 ? 4 : 7));
    if (dice.coin()) record.mul = 0.75f;
    if (dice.below(4) == 0) record.seed_round -= static_cast<uint32_t>(std::min<uint64_t>(record.round, dice.below(3)));
    if (i > 0 && dice.below(5) == 0) {
      const auto lane = static_cast<uint32_t>(dice.below(record.lanes));
      record.roster = {{lane, false, *chain.rules.roster()[lane]}, {lane, true, fresh++}};
    }
    if (dice.below(3) == 0) record.present[dice.below(record.lanes)] = false;
    size_t present = 0;
    for (bool one : record.present) present += one;
    record.bytes = dice.bytes(present * record.m);
    if (dice.below(3) == 0) {
      record.flags = 1;
      record.losses.assign(present, 0x3C00);
    }
    if (record.seed_round > 0 && dice.below(4) == 0 && record.seed_round + 1 >= record.round)
      record.extra.push_back({record.seed_round - 1, -0.5f, std::vector<bool>(record.lanes, true),
                              dice.bytes(size_t{record.lanes} * record.m)});
    records.push_back(chain.add(record));
  }
  if (count > 50) records.push_back(chain.add(chain.next(RecordType::end)));
  return records;
}

RunId some_run() {
  RunId run;
  run.sha256[1] = std::byte{9};
  return run;
}

TEST(Page, GivesBackTheSameRecordsBitForBit) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    Chain chain(some_run());
    const std::vector<Bytes> records = varied_chain(seed, 1 + seed * 5, chain);
    const Bytes page = encode_page(records, 0);
    const auto decoded = decode_page(page, some_run().prefix());
    ASSERT_TRUE(std::holds_alternative<Page>(decoded)) << std::get<Refusal>(decoded).rule;
    ASSERT_EQ(std::get<Page>(decoded).records, records);
    ASSERT_EQ(page_bytes(page), static_cast<int64_t>(page.size()));
  }
}

/// Signed by two packers in turn: rounds with late votes, conflicts and machines that come and go, and the other types.
std::vector<Bytes> signed_chain(size_t count, Chain& chain, const std::vector<SigningKey>& keys) {
  std::vector<Bytes> records;
  for (size_t i = 0; i < count; ++i) {
    Record record = i == 0 ? chain.first_round(5) : chain.round();
    if (i % 6 == 4) record = chain.next(static_cast<RecordType>(i % 4 == 0 ? 5 : 2 + chain.dice.below(2)));
    if (chain.dice.below(3) == 0) record.flags |= kHadConflict;
    if (record.type == RecordType::round && i > 0) {
      const auto absent = static_cast<uint32_t>(chain.dice.below(6));
      if (absent < 5) {
        record.present[absent] = false;
        record.bytes.resize(size_t{4} * record.m);
      }
      // Who was absent a round ago, if its record has no late vote yet.
      for (uint32_t lane = 0; record.round > 1 && lane < 5; ++lane) {
        const uint32_t seed_round = record.round - 1;
        if (chain.rules.rounds().is_counted(seed_round, lane)) continue;
        record.extra.push_back({seed_round, -0.5f, std::vector<bool>(record.lanes), chain.dice.bytes(record.m)});
        record.extra[0].present[lane] = true;
        break;
      }
    }
    const auto packer = static_cast<uint8_t>(chain.dice.below(2));
    records.push_back(chain.add_signed(record, keys[packer], packer));
  }
  return records;
}

TEST(Page, GivesBackSignedRecordsAndLateVotesBitForBit) {
  const std::vector<SigningKey> keys = rfc_keys();
  for (const size_t count : {1, 2, 7, 60}) {
    Chain chain(some_run(), {.format = 2, .signers = public_keys(keys)});
    const std::vector<Bytes> records = signed_chain(count, chain, keys);
    const Bytes page = encode_page(records, 0);
    const auto decoded = decode_page(page, some_run().prefix());
    ASSERT_TRUE(std::holds_alternative<Page>(decoded)) << std::get<Refusal>(decoded).rule;
    ASSERT_EQ(std::get<Page>(decoded).records, records);
    if (count != 7) continue;
    for (size_t at = 0; at < page.size(); ++at) {
      EXPECT_TRUE(std::holds_alternative<Refusal>(decode_page(std::span(page).first(at), some_run().prefix())));
      Bytes changed = page;
      changed[at] ^= static_cast<std::byte>(1 << (at % 8));
      EXPECT_TRUE(std::holds_alternative<Refusal>(decode_page(changed, some_run().prefix()))) << at;
    }
  }
}

TEST(Page, EveryTruncationAndEveryChangedByteIsRefused) {
  Chain chain(some_run());
  const Bytes page = encode_page(varied_chain(5, 20, chain), 0);
  for (size_t at = 0; at < page.size(); ++at) {
    EXPECT_TRUE(std::holds_alternative<Refusal>(decode_page(std::span(page).first(at), some_run().prefix())));
    Bytes changed = page;
    changed[at] ^= static_cast<std::byte>(1 << (at % 8));
    EXPECT_TRUE(std::holds_alternative<Refusal>(decode_page(changed, some_run().prefix()))) << at;
  }
}

TEST(Page, MutationsWithARightChecksumAreRefused) {  // the last record's hash must be right too
  Chain chain(some_run());
  const Bytes page = encode_page(varied_chain(6, 12, chain), 0);
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    Dice dice(seed);
    for (int i = 0; i < 5000; ++i) {
      Bytes changed = page;
      for (uint64_t changes = 1 + dice.below(3); changes > 0; --changes)
        changed[8 + dice.below(changed.size() - 12)] ^= static_cast<std::byte>(1 + dice.below(255));
      if (changed == page) continue;
      const uint32_t crc = crc32c(std::span(changed).first(changed.size() - 4));
      for (size_t k = 0; k < 4; ++k) changed[changed.size() - 4 + k] = static_cast<std::byte>(crc >> (8 * k) & 0xFF);
      const auto decoded = decode_page(changed, some_run().prefix());
      if (const auto* same = std::get_if<Page>(&decoded)) {  // another way to write the same records
        ASSERT_EQ(same->records.size(), std::get<Page>(decode_page(page, some_run().prefix())).records.size());
        ASSERT_EQ(chain_hash(same->records.back()), chain.rules.prev());
      }
    }
  }
}

/// Bytes on the disk a vote of a run of 16 machines and 16 probes with an alpha that changes each round.
class BytesAVote : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(WithLosses, BytesAVote, ::testing::Bool());

TEST_P(BytesAVote, AreABitMoreThanOne) {
  const bool has_losses = GetParam();
  const TemporaryFolder folder;
  StepLog log = StepLog::create(folder / "log", kHeader, {});
  Chain chain(log.run());
  constexpr int kRounds = 1024;
  for (int i = 0; i < kRounds; ++i) {
    Record record = i == 0 ? chain.first_round(16, 16) : chain.round(16);
    record.flags = has_losses ? 1 : 0;
    for (int k = 0; has_losses && k < 16; ++k) record.losses.push_back(static_cast<uint16_t>(chain.dice.next()));
    log.append(chain.add(record));
  }
  const double votes = kRounds * 256;
  const double in_segments = static_cast<double>(log.bytes_on_disk()) / votes;
  log.compact(log.size(), StepLog::Compaction::archive);
  const double in_archives = static_cast<double>(log.bytes_on_disk()) / votes;
  RecordProperty("bytes_per_vote_in_segments", fmt::format("{:.4f}", in_segments));
  RecordProperty("bytes_per_vote_in_archives", fmt::format("{:.4f}", in_archives));
  EXPECT_NEAR(in_segments, has_losses ? 1.38 : 1.26, 0.01);  // as docs/step_log.md says
  EXPECT_NEAR(in_archives, has_losses ? 1.14 : 1.02, 0.01);
}

/// Bytes that this process has read so far, from disk or not.
int64_t bytes_read() {
  std::ifstream file("/proc/self/io");
  std::string key;
  int64_t value = 0;
  file >> key >> value;
  return key == "rchar:" ? value : -1;
}

TEST(StepLog, CompactingReadsNoMoreOfALongLogThanOfAShortOne) {
  if (bytes_read() < 0) GTEST_SKIP() << "/proc/self/io cannot be read";
  for (const auto how : {StepLog::Compaction::archive, StepLog::Compaction::drop}) {
    const TemporaryFolder folder;
    StepLog log = StepLog::create(folder / "log", kHeader, {.sync_appends = false});
    Chain chain(log.run());
    std::vector<int64_t> reads;
    for (int checkpoint = 0; checkpoint < 40; ++checkpoint) {
      for (int i = 0; i < 50; ++i) log.append(chain.add(log.size() == 0 ? chain.first_round(4) : chain.round()));
      const uint64_t before = log.size() - 50;
      const int64_t start = bytes_read();
      log.new_segment();
      log.compact(before, how);
      reads.push_back(bytes_read() - start);
    }
    EXPECT_LE(reads[39], reads[2] + 1000) << "of 2000 rounds, and of 150";
    EXPECT_EQ(log.first_index(), how == StepLog::Compaction::drop ? 1950u : 0u);
    EXPECT_EQ(chain.rules.prev(), StepLog::open(folder / "log", {.access = StepLog::Access::read}).chain().prev());
  }
}

}  // namespace
}  // namespace tessera::test
