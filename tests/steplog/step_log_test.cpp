#include "steplog/step_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <thread>

#include "core/error.h"
#include "io/error_text.h"
#include "steplog/samples.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<Bytes> records_of(const StepLog& log, uint64_t from = 0) {
  std::vector<Bytes> all;
  log.for_each(from, [&](const Record& record, std::span<const std::byte> encoded) {
    EXPECT_EQ(record.index, from + all.size());
    all.emplace_back(encoded.begin(), encoded.end());
    return true;
  });
  return all;
}

/// A log of four machines, and what was appended to it.
struct Written {
  explicit Written(const fs::path& folder, int rounds, int64_t segment_bytes = int64_t{64} << 20, uint8_t m = 4) {
    StepLog log = StepLog::create(folder, kHeader, {.segment_bytes = segment_bytes});
    Chain chain(log.run());
    for (int i = 0; i < rounds; ++i) {
      records.push_back(chain.add(i == 0 ? chain.first_round(4, m) : chain.round(m)));
      log.append(records.back());
    }
  }
  std::vector<Bytes> records;
};

std::vector<std::string> files_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// The log's next record, as an append by this process.
void append_one(StepLog& log) {
  Chain chain(log.run());
  chain.rules = log.chain();
  log.append(chain.add(log.chain().roster().empty() ? chain.first_round(4) : chain.round()));
}

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

TEST(StepLog, TheMissingFileIsNamed) {
  const TemporaryFolder folder;
  Written(folder / "log", 20, 500);
  ASSERT_TRUE(fs::remove(folder / "log/00000005.tsb"));
  EXPECT_THAT(error_text([&] { StepLog::open(folder / "log", {}); }),
              HasSubstr("but the records before it end with number 4"));
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

/// A child process that works on a log until it is killed, and says the number of records after each piece of work.
struct Worker {
  Worker(const fs::path& folder, void (*work)(StepLog&)) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    process = fork();
    if (process == 0) {
      close(ends[0]);
      try {
        StepLog log = StepLog::create(folder, kHeader, {.segment_bytes = 2000});
        for (uint64_t size = log.size();;) {
          work(log);
          size = log.size();
          if (write(ends[1], &size, sizeof size) != sizeof size) break;
        }
      } catch (...) {
        _exit(1);
      }
      _exit(0);
    }
    close(ends[1]);
    said = ends[0];
  }
  /// Kills it; the number of records after the last piece of work that was done.
  uint64_t kill_and_count() {
    kill(process, SIGKILL);
    int status = 0;
    waitpid(process, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself";
    uint64_t size = 0, last = 0;
    while (read(said, &size, sizeof size) == sizeof size) last = size;
    close(said);
    return last;
  }
  pid_t process;
  int said;
};

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

TEST(StepLog, AKillAtAnyMomentLosesNoRecordWhoseAppendReturned) {
  const TemporaryFolder folder;
  Dice dice(20);
  uint64_t known = 0;
  for (int round = 0; round < 20; ++round) {
    Worker worker(folder / "log", append_one);
    std::this_thread::sleep_for(std::chrono::microseconds(dice.below(round < 8 ? 2500 : 60000)));
    known = std::max(known, worker.kill_and_count());
    if (!fs::exists(folder / "log/header.json")) continue;
    const StepLog log = StepLog::open(folder / "log", {});
    ASSERT_GE(log.size(), known);
    ASSERT_LE(log.size(), known + 1);
    known = log.size();
    ASSERT_EQ(records_of(log).size(), known);
  }
  EXPECT_GT(known, 20u);
}

TEST(StepLog, AKillAmidCompactionOrTruncationLeavesALogThatGoesOn) {
  const TemporaryFolder folder;
  Dice dice(21);
  const auto shuffle_files = [](StepLog& log) {
    for (int i = 0; i < 40; ++i) append_one(log);
    log.compact(log.size() - 10, StepLog::Compaction::archive);
    log.truncate(log.size() - 35);
    if (log.size() > log.first_index() + 60) log.compact(log.first_index() + 30, StepLog::Compaction::drop);
  };
  uint64_t most = 0;
  for (int round = 0; round < 20; ++round) {
    Worker worker(folder / "log", shuffle_files);
    std::this_thread::sleep_for(std::chrono::microseconds(dice.below(100'000)));
    worker.kill_and_count();
    if (!fs::exists(folder / "log/header.json")) continue;
    StepLog log = StepLog::open(folder / "log", {});
    ASSERT_EQ(records_of(log, log.first_index()).size(), log.size() - log.first_index());
    append_one(log);
    most = std::max(most, log.size());
  }
  EXPECT_GT(most, 50u);
}

}  // namespace
}  // namespace tessera::test
