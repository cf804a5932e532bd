// What a step log says of bytes that are torn, changed or missing.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "steplog/step_log_samples.h"
#include "support/error_text.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(StepLog, MendsOrOpensEveryTruncation) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 4);
  const fs::path file = folder / "log/00000000.tsb";
  const std::string whole = read_file(file);
  std::vector<size_t> ends{32};
  for (const Bytes& record : written.records) ends.push_back(ends.back() + 4 + record.size());
  for (size_t length = 0; length <= whole.size(); ++length) {
    write_file(file, whole.substr(0, length));
    const size_t kept = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), length) - ends.begin());
    const uint64_t records = kept == 0 ? 0 : kept - 1;
    {
      const StepLog reader = StepLog::open(folder / "log", {.access = StepLog::Access::read});
      ASSERT_EQ(reader.size(), records) << length;
      ASSERT_EQ(read_file(file), whole.substr(0, length)) << "a reader changed the file";
    }
    StepLog log = StepLog::open(folder / "log", {});
    ASSERT_EQ(log.size(), records) << length;
    if (length >= 32 && length != ends[kept - 1]) {
      ASSERT_THAT(log.notices(),
                  ElementsAre(fmt::format("cut {} bytes of a torn record off 00000000.tsb", length - ends[kept - 1])));
    }
    append_one(log);
    ASSERT_EQ(StepLog::open(folder / "log", {.access = StepLog::Access::read}).size(), records + 1) << length;
  }
}

TEST(StepLog, FindsEveryChangedByteBeforeTheTail) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 4);
  const fs::path file = folder / "log/00000000.tsb";
  const std::string whole = read_file(file);
  const size_t last = whole.size() - written.records.back().size() - 4;
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] ^= static_cast<char>(1 << (at % 8));
    write_file(file, changed);
    if (at < last) {
      const std::string text = error_text([&] { StepLog::open(folder / "log", {}); });
      ASSERT_THAT(text, HasSubstr(file.string() + ": byte ")) << at;
      ASSERT_EQ(read_file(file), changed) << "a damaged file is not touched";
    } else {
      const StepLog log = StepLog::open(folder / "log", {});
      ASSERT_EQ(log.size(), 3u) << at;
      ASSERT_THAT(
          log.notices(),
          ElementsAre(HasSubstr(fmt::format("cut {} bytes of a damaged record off 00000000.tsb", whole.size() - last))))
          << "it is there to its end, which no kill leaves";
    }
  }
}

TEST(StepLog, NamesTheOffsetAndTheRuleOfDamage) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 3);
  const fs::path file = folder / "log/00000000.tsb";
  std::string bytes = read_file(file);
  const size_t second = 32 + 4 + written.records[0].size();
  bytes[second + 4 + 60] ^= 1;
  write_file(file, bytes);
  EXPECT_EQ(
      error_text([&] { StepLog::open(folder / "log", {}); }),
      fmt::format("{}: byte {}: record 1 is damaged (crc: the checksum does not match)\n  every machine of the run "
                  "has the same records: take the file from another one, or from a copy",
                  file.string(), second));
}

TEST(StepLog, FindsDamageThatHappensWhileItIsOpen) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 3);
  const StepLog log = StepLog::open(folder / "log", {.access = StepLog::Access::read});
  const fs::path file = folder / "log/00000000.tsb";
  std::string bytes = read_file(file);
  bytes.back() ^= 1;
  write_file(file, bytes);
  EXPECT_THAT(error_text([&] { records_of(log); }), HasSubstr("record 2 is damaged (crc"));
}

TEST(StepLog, TheMissingFileIsNamed) {
  const TemporaryFolder folder;
  Written(folder / "log", 20, 500);
  ASSERT_TRUE(fs::remove(folder / "log/00000005.tsb"));
  EXPECT_THAT(error_text([&] { StepLog::open(folder / "log", {}); }),
              HasSubstr("but the records before it end with number 4"));
}

}  // namespace
}  // namespace tessera::test
