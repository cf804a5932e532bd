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

TEST(StepLog, IsReadUpToItsDamageWhereThatIsAskedFor) {
  const TemporaryFolder folder;
  const Written written(folder / "log", 9, 1500);  // some segments
  for (const std::string& name : files_in(folder / "log")) {
    if (!name.ends_with(".tsb")) continue;
    const fs::path file = folder / "log" / name;
    const std::string whole = read_file(file);
    const auto first = static_cast<size_t>(std::stoi(name));
    size_t records = first, end = 32;  // those that end at or before the byte
    for (size_t at = 0; at < whole.size(); at += 7) {
      while (end + 4 + written.records[records].size() <= at && records + 1 < written.records.size()) {
        end += 4 + written.records[records].size();
        ++records;
      }
      std::string changed = whole;
      changed[at] ^= static_cast<char>(1 << (at % 8));
      write_file(file, changed);
      const StepLog log = StepLog::open(folder / "log", {.access = StepLog::Access::read, .up_to_damage = true});
      ASSERT_EQ(log.size(), records) << name << " " << at;
      ASSERT_EQ(records_of(log),
                std::vector<Bytes>(written.records.begin(), written.records.begin() + static_cast<int64_t>(records)));
      const bool is_tail = records + 1 == written.records.size();
      ASSERT_EQ(log.damage().has_value(), !is_tail) << "a damaged last record is a notice";
      if (!is_tail) {
        ASSERT_EQ(log.damage()->what(),
                  error_text([&] { StepLog::open(folder / "log", {.access = StepLog::Access::read}); }));
      }
    }
    write_file(file, whole);
  }
  EXPECT_FALSE(StepLog::open(folder / "log", {.access = StepLog::Access::read, .up_to_damage = true}).damage());
  fs::rename(folder / "log/00000000.tsb", folder / "log/elsewhere");
  EXPECT_EQ(StepLog::open(folder / "log", {.access = StepLog::Access::read, .up_to_damage = true}).size(), 0u);
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
      fmt::format(
          "{}: byte {}: record 1 is damaged (crc: the checksum does not match)\n  every machine of the run "
          "has the same records: take the file from another one, or from a copy; job=replay tells up to which round "
          "the records before it go",
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
