// A branch: a run of its own that shares its first rounds with another.

#include "train/spsa/branch.h"

#include <gmock/gmock.h>

#include "core/error.h"
#include "io/sha256.h"
#include "support/paths.h"
#include "train/run_folder.h"
#include "train/spsa/figures.h"
#include "train/spsa/replicas.h"
#include "train/spsa/snapshots.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int kRounds = 12;

class Branch : public testing::Test {
 protected:
  Branch() : header_(header_of(start_)), log_(StepLog::create(run() / "log", header_.text(), {})) {
    append_rounds(log_);
    MetricsFile metrics(run() / "metrics.jsonl");
    for (int step = 1; step <= kRounds; ++step) metrics.append(Json::object().set("step", step).set("split", "train"));
  }
  fs::path run() const { return folder_ / "run"; }
  void append_rounds(StepLog& log, int new_segment_at = -1) {
    ChainTip tip;
    for (Record record : random_rounds(header_, start_, kRounds)) {
      if (static_cast<int>(tip.index) == new_segment_at) log.new_segment();
      record.run = log.run().prefix();
      record.index = tip.index;
      record.prev = tip.prev;
      const Bytes encoded = encode(record);
      log.append(encoded);
      tip.advance(encoded);
    }
  }
  /// The run's log, and its replica at a round of it.
  struct At {
    OwnPool pool;
    Replica replica;
    At(const RunHeader& header, const Context& ctx, const StepLog& log, const fs::path& snapshots, uint32_t round)
        : replica(header, pool.params()) {
      replay(ctx, replica, log, snapshots, round);
    }
  };
  std::unique_ptr<At> at(const StepLog& log, uint32_t round, const fs::path& snapshots = {}) const {
    return std::make_unique<At>(RunHeader::parse(log.header(), "header"), own_.ctx, log, snapshots, round);
  }
  void branch(uint32_t round) const {
    write_branch(own_.ctx, folder_ / "branch", log_, run(), at(log_, round)->replica);
  }
  std::string refusal() const {
    try {
      branch(5);
    } catch (const UserError& error) {
      return error.what();
    }
    return "nothing was thrown";
  }

  TemporaryFolder folder_;
  OwnContext own_;
  OwnPool start_;
  RunHeader header_;
  StepLog log_;
};

TEST_F(Branch, HasTheRunsStateAtItsRoundFromItsRecordsAndFromItsSnapshot) {
  branch(5);
  const StepLog log = StepLog::open(folder_ / "branch/log", {.access = StepLog::Access::read});
  const std::string expected = at(log_, 5)->pool.bytes();
  EXPECT_EQ(rounds_in(log), 5u);
  EXPECT_EQ(at(log, 5)->pool.bytes(), expected);
  EXPECT_EQ(at(log, 5, folder_ / "branch/checkpoints")->pool.bytes(), expected);
  EXPECT_NE(at(log_, kRounds)->pool.bytes(), expected);
  EXPECT_EQ(snapshots_in(log).count(5), 1u) << "its log vouches for the snapshot";
  EXPECT_EQ(read_file(folder_ / "branch/checkpoints/latest"), "round-00000005.safetensors\n");
}

TEST_F(Branch, IsARunOfItsOwnThatNamesItsParent) {
  branch(5);
  const StepLog log = StepLog::open(folder_ / "branch/log", {.access = StepLog::Access::read});
  RunHeader header = RunHeader::parse(log.header(), "header");
  EXPECT_EQ(header.parent, sha256_hex(log_.header()) + " round 5");
  EXPECT_NE(log.run().prefix(), log_.run().prefix());
  header.parent = header_.parent;
  EXPECT_EQ(header.text(), header_.text()) << "all else is its parent's";
}

TEST_F(Branch, TakesTheRoundsOfItsParentAsTheyAre) {
  branch(5);
  const auto rounds_of = [](const StepLog& log) {
    std::vector<std::vector<uint8_t>> votes;
    log.for_each(0, [&](const Record& record, std::span<const std::byte>) {
      if (record.type == RecordType::round && record.round < 5) votes.push_back(record.bytes);
      return true;
    });
    return votes;
  };
  const auto votes = rounds_of(StepLog::open(folder_ / "branch/log", {.access = StepLog::Access::read}));
  EXPECT_EQ(votes.size(), 5u);
  EXPECT_EQ(votes, rounds_of(log_));
}

TEST_F(Branch, TakesMetricsAndFiguresUpToItsRound) {
  CheckpointMeta meta;
  meta.step = meta.evaluated_at = 4;
  meta.last_eval["scored"] = 7;
  keep_figures(run(), meta);
  branch(5);
  std::vector<int64_t> steps;
  for (const Json& line : MetricsFile(folder_ / "branch/metrics.jsonl").lines())
    steps.push_back(line.at("step").as_integer());
  EXPECT_THAT(steps, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_EQ(read_figures(folder_ / "branch", 5).value().last_eval["scored"], 7);
}

TEST_F(Branch, OfARunWithoutMetricsHasNone) {
  fs::remove(run() / "metrics.jsonl");
  branch(5);
  EXPECT_FALSE(fs::exists(folder_ / "branch/metrics.jsonl"));
  EXPECT_FALSE(fs::exists(folder_ / "branch/figures.json"));
}

TEST_F(Branch, OfABranchKeepsTheSharedRounds) {
  branch(5);
  const StepLog first = StepLog::open(folder_ / "branch/log", {.access = StepLog::Access::read});
  write_branch(own_.ctx, folder_ / "second", first, folder_ / "branch", at(first, 3)->replica);
  const StepLog second = StepLog::open(folder_ / "second/log", {.access = StepLog::Access::read});
  EXPECT_EQ(at(second, 3)->pool.bytes(), at(log_, 3)->pool.bytes());
}

TEST_F(Branch, NeverTakesAFolderThatIsThere) {
  fs::create_directories(folder_ / "branch");
  EXPECT_EQ(refusal(), (folder_ / "branch").string() +
                           ": is there already, and a branch is a new run\n"
                           "  name another folder, or remove this one");
  EXPECT_TRUE(fs::is_empty(folder_ / "branch"));
}

TEST_F(Branch, ThatCannotBeMadeLeavesNothing) {
  fs::create_directories(run() / "metrics.jsonl.folder");
  fs::remove(run() / "metrics.jsonl");
  fs::rename(run() / "metrics.jsonl.folder", run() / "metrics.jsonl");  // a folder is no file to copy
  EXPECT_THROW(branch(5), std::exception);
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder_.path())) left.push_back(entry.path().filename().string());
  EXPECT_THAT(left, ElementsAre("run"));
}

TEST_F(Branch, OfALogWhoseFirstRoundsWereDroppedIsRefused) {
  StepLog dropped = StepLog::create(folder_ / "dropped", header_.text(), {});
  append_rounds(dropped, 4);  // it begins a segment there, and compaction goes by whole segments
  dropped.compact(4, StepLog::Compaction::drop);
  ASSERT_GT(dropped.first_index(), 0u);
  try {
    require_free_for_branch(folder_ / "branch", dropped);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the log's first rounds were dropped, and a branch keeps all of its own"));
  }
}

TEST(BranchCommand, OfProcessesThatShareAFolderNamesTheOtherTransport) {
  SpsaConfig config;
  EXPECT_EQ(branch_command(config), "job=replay replay.branch=FOLDER, then train with run.dir=FOLDER");
  config.transport = "file";
  EXPECT_THAT(branch_command(config), HasSubstr(" spsa.transport=mpi, as one process or as the ranks of one job"));
}

}  // namespace
}  // namespace tessera
