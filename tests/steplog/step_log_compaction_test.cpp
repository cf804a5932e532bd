// Archived and dropped records of a step log, and logs that begin behind them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "steplog/step_log_samples.h"
#include "support/error_text.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(StepLog, ArchivesGiveBackTheSameRecordsBitForBit) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 1000, 30'000);
  const int64_t before = StepLog::open(folder / "log", {.access = StepLog::Access::read}).bytes_on_disk();
  {
    StepLog log = StepLog::open(folder / "log", {.segment_bytes = 30'000});
    log.compact(800, StepLog::Compaction::archive);
    EXPECT_EQ(records_of(log), written.records);
    log.compact(1000, StepLog::Compaction::archive);
    EXPECT_LT(log.bytes_on_disk(), before / 3);
    append_one(log);
  }
  const StepLog log = StepLog::open(folder / "log", {});
  EXPECT_THAT(log.notices(), IsEmpty());
  auto records = records_of(log);
  records.pop_back();
  EXPECT_EQ(records, written.records);
  EXPECT_EQ(records_of(log, 555)[0], written.records[555]);
}

TEST(StepLog, AKilledCompactionIsFinishedByTheNext) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 20, 500);
  const std::string segment = read_file(folder / "log/00000000.tsb");
  StepLog::open(folder / "log", {}).compact(17, StepLog::Compaction::archive);
  write_file(folder / "log/00000000.tsb", segment);  // as if it had been killed before it removed this
  const StepLog log = StepLog::open(folder / "log", {});
  EXPECT_EQ(records_of(log), written.records);
  EXPECT_FALSE(fs::exists(folder / "log/00000000.tsb"));
}

TEST(StepLog, FindsEveryChangedByteOfAnArchive) {
  const TemporaryFolder folder;
  Written(folder / "log", 6);
  StepLog::open(folder / "log", {}).compact(6, StepLog::Compaction::archive);
  const fs::path file = folder / "log/00000000.tsa";
  const std::string whole = read_file(file);
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] ^= static_cast<char>(1 << (at % 8));
    write_file(file, changed);
    ASSERT_THAT(error_text([&] { StepLog::open(folder / "log", {}); }), HasSubstr(file.string() + ": byte ")) << at;
    write_file(file, whole.substr(0, at));
    ASSERT_NE(error_text([&] { StepLog::open(folder / "log", {}); }), "nothing was thrown") << at;
  }
}

TEST(StepLog, DroppedRecordsAreGoneAndTheChainGoesOn) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 20, 500);
  {
    StepLog log = StepLog::open(folder / "log", {.segment_bytes = 500});
    log.compact(8, StepLog::Compaction::archive);
    log.compact(13, StepLog::Compaction::drop);
    EXPECT_EQ(log.first_index(), 10u);
  }
  StepLog log = StepLog::open(folder / "log", {});
  EXPECT_EQ(log.first_index(), 10u);
  EXPECT_EQ(log.size(), 20u);
  EXPECT_EQ(log.chain().roster().size(), 4u);
  EXPECT_EQ(records_of(log, 10), std::vector<Bytes>(written.records.begin() + 10, written.records.end()));
  EXPECT_THAT(error_text([&] { records_of(log, 9); }), HasSubstr("the log was compacted and begins with record 10"));
  EXPECT_THAT(error_text([&] { log.truncate(9); }), HasSubstr("begins with record 10"));
  log.truncate(11);
  append_one(log);
  EXPECT_EQ(log.size(), 12u);
}

TEST(StepLog, BeginsWhereAnotherLogOfTheRunBegins) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 30, 500);
  StepLog whole = StepLog::open(folder / "log", {.segment_bytes = 500});
  EXPECT_THAT(whole.start_state(), IsEmpty());
  whole.compact(20, StepLog::Compaction::drop);
  ASSERT_GT(whole.first_index(), 10u);
  for (const int held : {0, 7, 10}) {  // records of the log that is behind
    const fs::path place = folder / ("behind" + std::to_string(held));
    StepLog behind = StepLog::create(place, kHeader, {.segment_bytes = 500});
    for (int i = 0; i < held; ++i) behind.append(written.records[static_cast<size_t>(i)]);
    behind.begin_at(whole.start_state());
    EXPECT_EQ(behind.first_index(), whole.first_index());
    EXPECT_EQ(behind.size(), whole.first_index());
    for (size_t i = behind.size(); i < written.records.size(); ++i) behind.append(written.records[i]);
    EXPECT_EQ(records_of(behind, behind.first_index()), records_of(whole, whole.first_index()));
  }
  const StepLog again = StepLog::open(folder / "behind7", {});
  EXPECT_EQ(again.size(), 30u);
  EXPECT_EQ(again.chain().roster(), whole.chain().roster());
}

}  // namespace
}  // namespace tessera::test
