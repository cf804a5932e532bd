#include "steplog/step_log.h"

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

TEST(StepLog, GivesBackWhatWasAppendedAfterReopening) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 20);
  const StepLog log = StepLog::open(folder / "log", {});
  EXPECT_EQ(log.size(), 20u);
  EXPECT_EQ(log.chain().next_round(), 20u);
  EXPECT_EQ(log.header(), kHeader);
  EXPECT_THAT(log.notices(), IsEmpty());
  EXPECT_EQ(records_of(log), written.records);
  EXPECT_EQ(records_of(log, 17), std::vector<Bytes>(written.records.begin() + 17, written.records.end()));
  EXPECT_THAT(records_of(log, 20), IsEmpty());
}

TEST(StepLog, GoesOnInANewSegmentWhenOneIsFull) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 20, 500);
  const StepLog log = StepLog::open(folder / "log", {.segment_bytes = 500});
  EXPECT_THAT(files_in(folder / "log"), ::testing::Contains("00000005.tsb"));
  EXPECT_GT(files_in(folder / "log").size(), 5u);
  EXPECT_EQ(records_of(log), written.records);
  EXPECT_EQ(records_of(log, 11), std::vector<Bytes>(written.records.begin() + 11, written.records.end()));
}

TEST(StepLog, WritesNothingOfARecordThatBreaksARule) {
  const TemporaryFolder folder;
  StepLog log = StepLog::create(folder / "log", kHeader, {});
  Chain chain(log.run());
  log.append(chain.add(chain.first_round(2)));
  const int64_t bytes = log.bytes_on_disk();
  Record gap = chain.round();
  gap.round = 7;
  EXPECT_EQ(error_text([&] { log.append(encode(gap)); }),
            (folder / "log").string() + ": record 1 breaks the rule \"round\": round 7, expected round 1");
  Bytes torn = encode(chain.round());
  torn.pop_back();
  EXPECT_THAT(error_text([&] { log.append(torn); }), HasSubstr("breaks the rule \"length\""));
  EXPECT_EQ(log.bytes_on_disk(), bytes);
  EXPECT_EQ(fs::file_size(folder / "log/00000000.tsb"), static_cast<uintmax_t>(bytes));
  log.append(chain.add(chain.round()));
  EXPECT_EQ(log.size(), 2u);
}

TEST(StepLog, ARecordThatDoesNotFitOnTheDiskLeavesTheLogAsItWas) {
  const TemporaryFolder folder;
  StepLog log = StepLog::create(folder / "log", kHeader, {});
  Chain chain(log.run());
  log.append(chain.add(chain.first_round(2)));
  const Bytes next = encode(chain.round());
  {
    const FileSizeLimit limit(static_cast<rlim_t>(log.bytes_on_disk()) + 10);
    EXPECT_THAT(error_text([&] { log.append(next); }), HasSubstr("00000000.tsb: cannot be written"));
  }
  EXPECT_EQ(log.size(), 1u);
  log.append(next);
  EXPECT_EQ(StepLog::open(folder / "log", {.access = StepLog::Access::read}).size(), 2u);
}

TEST(StepLog, AFolderOfAnotherRunIsRefusedWithTheFirstKeyThatDiffers) {
  const TemporaryFolder folder;
  Written(folder / "log", 1);
  const auto refusal = [&](const std::string& header) {
    const std::string text = error_text([&] { StepLog::create(folder / "log", header, {}); });
    return text.substr(0, text.find('\n'));
  };
  const std::string place = (folder / "log/header.json").string() + ": the log belongs to another run: ";
  EXPECT_EQ(refusal(R"({"format": 1, "eps": "3c23d70a", "privacy": {"clip": 9}})"),
            place + R"("eps" is "3a83126f" there and "3c23d70a" here)");
  EXPECT_EQ(refusal(R"({"format": 1, "eps": "3a83126f", "privacy": {"clip": 9}})"),
            place + R"("privacy.clip" is 8 there and 9 here)");
  EXPECT_EQ(refusal(R"({"format": 1, "eps": "3a83126f"})"),
            place + R"("privacy" is {"clip":8} there and missing here)");
  EXPECT_EQ(refusal(R"({"format": 1, "eps": "3a83126f", "privacy": {"clip": 8}, "K": 8})"),
            place + R"("K" is missing there and 8 here)");
  EXPECT_EQ(refusal(R"({"eps": "3a83126f", "format": 1, "privacy": {"clip": 8}})"),
            place + "the same keys and values, in another order or layout");
  EXPECT_EQ(StepLog::create(folder / "log", kHeader, {}).size(), 1u);
}

TEST(StepLog, AFolderThatIsNoLogIsNamed) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_text([&] { StepLog::open(folder.path(), {}); }),
              HasSubstr("is no step log: it has no header.json"));
}

TEST(StepLog, HasOneWriterAtATime) {
  const TemporaryFolder folder;
  const StepLog log = StepLog::create(folder / "log", kHeader, {});
  EXPECT_THAT(error_text([&] { StepLog::open(folder / "log", {}); }),
              HasSubstr("the log is being written by another process"));
  EXPECT_EQ(StepLog::open(folder / "log", {.access = StepLog::Access::read}).size(), 0u);
}

TEST(StepLog, AReaderFollowsTheWriterThroughSegments) {
  const TemporaryFolder folder;
  StepLog log = StepLog::create(folder / "log", kHeader, {.segment_bytes = 400});
  StepLog reader = StepLog::open(folder / "log", {.access = StepLog::Access::read});
  for (uint64_t i = 1; i <= 12; ++i) {
    append_one(log);
    reader.refresh();
    ASSERT_EQ(reader.size(), i);
  }
  EXPECT_EQ(records_of(reader), records_of(log));
  log.compact(9, StepLog::Compaction::archive);
  EXPECT_EQ(records_of(reader), records_of(log)) << "a reader finds the archives";
}

TEST(StepLog, TruncateGoesBackToAnySize) {
  const TemporaryFolder folder;
  for (const bool archived : {false, true})
    for (uint64_t size = 0; size <= 20; ++size) {
      const fs::path place = folder / fmt::format("{}-{}", size, archived);
      const Written written(place, 20, 500);
      StepLog log = StepLog::open(place, {.segment_bytes = 500});
      if (archived) log.compact(17, StepLog::Compaction::archive);
      log.truncate(size);
      ASSERT_EQ(log.size(), size);
      ASSERT_EQ(records_of(log),
                std::vector<Bytes>(written.records.begin(), written.records.begin() + static_cast<int64_t>(size)));
      append_one(log);
      ASSERT_EQ(log.size(), size + 1);
      ASSERT_THAT(log.notices(), IsEmpty());
    }
}

}  // namespace
}  // namespace tessera::test
