// Real processes that share a folder. Each opens the engine itself, after the fork.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <thread>

#include "core/error.h"
#include "steplog/log_engine.h"
#include "steplog/samples.h"
#include "steplog/step_log.h"
#include "support/error_text.h"
#include "support/paths.h"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAreArray;
using Append = LogEngine::Append;
using Clock = std::chrono::steady_clock;

pid_t start(const std::function<void()>& work) {
  const pid_t process = fork();
  if (process != 0) return process;
  try {
    work();
  } catch (const std::exception& error) {
    fprintf(stderr, "child: %s\n", error.what());
    _exit(1);
  }
  _exit(0);
}

int exit_status(pid_t process) {
  int status = 0;
  waitpid(process, &status, 0);
  return status;
}

RunId run_of_header() {
  const TemporaryFolder folder;
  return StepLog::create(folder / "log", kHeader, {}).run();
}

Bytes vote_of(uint32_t machine, uint32_t round) {
  Vote vote;
  vote.machine = machine;
  vote.seed_round = round;
  vote.bytes = Dice(machine * 1000 + round).bytes(3);
  return encode(vote);
}

/// One replica's view of the log: follows it and appends what it can.
class Racer {
 public:
  Racer(const fs::path& folder, RunId run, uint32_t number)
      : engine_(make_file_engine(folder, kHeader)), chain_(run), number_(number) {
    chain_.dice = Dice(number);
  }
  /// Tries to append the next record; says whether it won.
  bool race() {
    catch_up();
    Record record = size() == 0 ? chain_.first_round(3) : chain_.round();
    record.alpha = -static_cast<float>(number_ + 1);  // the winner's mark
    const Bytes encoded = encode(record);
    if (engine_->append(size(), encoded) == Append::conflict) return false;
    chain_.rules.accept(record, encoded);
    return true;
  }
  void catch_up() {
    for (const Bytes& encoded : engine_->read(size())) {
      const Record record = std::get<Record>(decode_record(encoded));
      TS_CHECK(!chain_.rules.refuses(record), "record {} breaks the chain", record.index);
      chain_.rules.accept(record, encoded);
    }
  }
  uint64_t size() const { return chain_.rules.next_index(); }

 private:
  std::unique_ptr<LogEngine> engine_;
  Chain chain_;
  uint32_t number_;
};

TEST(FileEngine, GivesTheVotesOfAllOnce) {
  const TemporaryFolder folder;
  const auto a = make_file_engine(folder / "run", kHeader), b = make_file_engine(folder / "run", kHeader);
  a->publish_vote(vote_of(0, 0));
  b->publish_vote(vote_of(1, 0));
  b->publish_vote(vote_of(1, 1));
  const std::vector<Bytes> all{vote_of(0, 0), vote_of(1, 0), vote_of(1, 1)};
  EXPECT_THAT(a->take_votes(), UnorderedElementsAreArray(all));
  EXPECT_TRUE(a->take_votes().empty());
  a->publish_vote(vote_of(0, 1));
  EXPECT_EQ(a->take_votes(), std::vector<Bytes>{vote_of(0, 1)});
  EXPECT_EQ(b->take_votes().size(), 4u);
  EXPECT_EQ(a->traffic().up, 44);
  EXPECT_EQ(a->traffic().down, 4 * 22);
}

TEST(FileEngine, RemovesVotesOfRoundsLongGone) {
  const TemporaryFolder folder;
  const auto engine = make_file_engine(folder / "run", kHeader);
  for (uint32_t round = 0; round < 100; ++round) {
    engine->publish_vote(vote_of(0, round));
    ASSERT_EQ(engine->take_votes(), std::vector<Bytes>{vote_of(0, round)});
  }
  EXPECT_LE(std::distance(fs::directory_iterator(folder / "run/votes"), fs::directory_iterator()), 17);
  engine->publish_vote(vote_of(0, 3));  // far too late; it arrives all the same
  EXPECT_EQ(engine->take_votes(), std::vector<Bytes>{vote_of(0, 3)});
}

TEST(FileEngine, ATornVoteIsMendedByTheNext) {
  const TemporaryFolder folder;
  const auto engine = make_file_engine(folder / "run", kHeader);
  engine->publish_vote(vote_of(0, 5));
  const fs::path file = folder / "run/votes/00000005.votes";
  const std::string whole = read_file(file);
  for (size_t torn = 1; torn < whole.size(); ++torn) {
    write_file(file, whole + whole.substr(0, torn));
    const auto reader = make_file_engine(folder / "run", kHeader);
    ASSERT_EQ(reader->take_votes().size(), 1u);
    engine->publish_vote(vote_of(1, 5));
    ASSERT_EQ(reader->take_votes(), std::vector<Bytes>{vote_of(1, 5)}) << torn;
  }
}

TEST(FileEngine, WaitReturnsAtNewsAndAtTheTimeout) {
  const TemporaryFolder folder;
  const auto engine = make_file_engine(folder / "run", kHeader);
  auto begin = Clock::now();
  engine->wait(milliseconds(30));
  EXPECT_GE(Clock::now() - begin, milliseconds(30));

  const pid_t other = start([&] {
    const auto mine = make_file_engine(folder / "run", kHeader);
    std::this_thread::sleep_for(milliseconds(20));
    mine->publish_vote(vote_of(1, 0));
  });
  engine->wait(milliseconds(20'000));
  EXPECT_EQ(engine->take_votes().size(), 1u);
  EXPECT_EQ(exit_status(other), 0);

  const pid_t appender = start([&] { Racer(folder / "run", run_of_header(), 1).race(); });
  begin = Clock::now();
  engine->wait(milliseconds(20'000));
  EXPECT_LT(Clock::now() - begin, milliseconds(19'000));
  EXPECT_EQ(engine->read(0).size(), 1u);
  EXPECT_EQ(exit_status(appender), 0);
}

TEST(FileEngine, WaitingTakesHardlyAnyProcessorTime) {
  const TemporaryFolder folder;
  const auto engine = make_file_engine(folder / "run", kHeader);
  const std::clock_t begin = std::clock();
  engine->wait(milliseconds(300));
  EXPECT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, 0.1);
}

TEST(FileEngine, TheOthersMustHaveTheSameHeader) {
  const TemporaryFolder folder;
  const auto engine = make_file_engine(folder / "run", kHeader);
  EXPECT_THAT(error_text([&] { make_file_engine(folder / "run", R"({"format": 2})"); }),
              HasSubstr("the log belongs to another run: \"format\" is 1 there and 2 here"));
}

TEST(FileEngine, OfProcessesThatRaceExactlyOneWinsEachNumber) {
  const TemporaryFolder folder;
  const RunId run = run_of_header();
  constexpr uint64_t kRecords = 200;
  std::vector<pid_t> racers;
  for (uint32_t number = 0; number < 3; ++number)
    racers.push_back(start([&] {
      Racer racer(folder / "run", run, number);
      std::string won;
      while (racer.size() < kRecords)
        if (racer.race()) won += fmt::format("{}\n", racer.size() - 1);
      write_file(folder / fmt::format("won-{}", number), won);
    }));
  for (pid_t racer : racers) ASSERT_EQ(exit_status(racer), 0);

  std::map<uint64_t, float> winner;
  for (uint32_t number = 0; number < 3; ++number) {
    std::istringstream won(read_file(folder / fmt::format("won-{}", number)));
    for (uint64_t index; won >> index;)
      EXPECT_TRUE(winner.emplace(index, -static_cast<float>(number + 1)).second) << "two won number " << index;
  }
  const StepLog log = StepLog::open(folder / "run", {.limits = {.alpha_max = 10}});
  EXPECT_EQ(winner.size(), log.size());
  log.for_each(0, [&](const Record& record, std::span<const std::byte>) {
    EXPECT_EQ(record.alpha, winner[record.index]) << "number " << record.index;
    return true;
  });
}

TEST(FileEngine, AKillOfAnyProcessLeavesItUsable) {
  const TemporaryFolder folder;
  const RunId run = run_of_header();
  Dice dice(7);
  const auto racer = [&](uint32_t number) {
    return start([&, number] {
      Racer racer(folder / "run", run, number);
      const auto votes = make_file_engine(folder / "run", kHeader);
      while (true) {
        racer.race();
        votes->publish_vote(vote_of(number, static_cast<uint32_t>(racer.size())));
      }
    });
  };
  std::vector<pid_t> racers{racer(0), racer(1), racer(2)};
  for (uint32_t kills = 0; kills < 12; ++kills) {
    std::this_thread::sleep_for(std::chrono::microseconds(dice.below(40'000)));
    pid_t& victim = racers[dice.below(3)];
    kill(victim, SIGKILL);
    ASSERT_TRUE(WIFSIGNALED(exit_status(victim)));
    victim = racer(3 + kills);
  }
  for (pid_t process : racers) {
    kill(process, SIGKILL);
    ASSERT_TRUE(WIFSIGNALED(exit_status(process)));
  }
  Racer last(folder / "run", run, 99);
  last.catch_up();
  const uint64_t size = last.size();
  EXPECT_GT(size, 3u);
  EXPECT_TRUE(last.race());
  const StepLog log = StepLog::open(folder / "run", {});
  EXPECT_EQ(log.size(), size + 1);
}

}  // namespace
}  // namespace tessera::test
