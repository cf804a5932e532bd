#include "infer/rank_reports.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>

#include "support/thread_ranks.h"

namespace tessera {
namespace {

const auto kNever = [] { return false; };

EngineCounts counts_of(int64_t finished) {
  EngineCounts counts;
  counts.finished = finished;
  counts.schedule.computed = 10 * finished;
  return counts;
}

TEST(RankReports, BringsEveryLineToRankZeroOnceAndSumsTheCounts) {
  for (const int ranks : {1, 2, 3, 5}) {
    std::map<int64_t, std::string> taken;
    test::on_thread_ranks(ranks, [&](Communicator& world) {
      const int rank = world.rank();
      RankReports reports(world, [&](const NumberedLines& lines) {
        EXPECT_EQ(rank, 0);
        for (const auto& [number, line] : lines) EXPECT_TRUE(taken.emplace(number, line).second) << number;
      });
      // Ranks have more and less to do; the last one nothing at all.
      const int64_t passes = 40 * (ranks - 1 - rank);
      for (int64_t pass = 0; pass < passes; ++pass) {
        NumberedLines lines;
        if (rank > 0) lines.emplace_back(1000 * rank + pass, fmt::format("{{\"a b\": {}}}", pass));
        EXPECT_FALSE(reports.tell(counts_of(pass), lines, false));
      }
      EXPECT_TRUE(reports.end(counts_of(passes), true, kNever));
      if (rank > 0) return;
      int64_t all = 0, others = 0;
      for (int r = 0; r < ranks; ++r) all += 40 * (ranks - 1 - r), others += r > 0 ? 40 * (ranks - 1 - r) : 0;
      EXPECT_EQ(reports.counts().finished, all);
      EXPECT_EQ(reports.counts().schedule.computed, 10 * all);
      EXPECT_EQ(std::ssize(taken), others);
      if (ranks > 2) {
        EXPECT_EQ(taken.at(1007), "{\"a b\": 7}");
      }
    });
  }
}

TEST(RankReports, CarriesLinesThatAreLongerThanAMessage) {
  const std::string line(size_t{30} << 20, 'x');
  int64_t bytes = 0;
  test::on_thread_ranks(2, [&](Communicator& world) {
    RankReports reports(world, [&](const NumberedLines& lines) {
      for (const auto& each : lines) bytes += std::ssize(each.second);
    });
    if (world.rank() == 1) {
      // Only the first message is on its way before the end.
      reports.tell({}, {{0, line}}, false);
      reports.tell({}, {{1, line}, {2, line}, {3, line}, {4, line}}, false);
    }
    EXPECT_TRUE(reports.end({}, true, kNever));
  });
  EXPECT_EQ(bytes, 5 * std::ssize(line));
}

TEST(RankReports, StopsAllRanksWhenOneIsAskedWhileItWorks) {
  for (const int asked : {0, 1, 2}) {
    std::atomic<int> stopped = 0;
    test::on_thread_ranks(3, [&](Communicator& world) {
      RankReports reports(world, [](const NumberedLines&) {});
      const int rank = world.rank();
      // None ends by itself.
      for (int64_t pass = 0; !reports.tell(counts_of(pass), {}, rank == asked && pass > 20); ++pass) {
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
      EXPECT_FALSE(reports.end(counts_of(1), false, kNever));
      ++stopped;
    });
    EXPECT_EQ(stopped, 3);
  }
}

TEST(RankReports, StopsAllRanksWhenOneIsAskedThatHasEnded) {
  for (const int asked : {0, 2})
    test::on_thread_ranks(3, [&](Communicator& world) {
      RankReports reports(world, [](const NumberedLines&) {});
      const int rank = world.rank();
      if (rank == 1)
        while (!reports.tell({}, {}, false)) std::this_thread::sleep_for(std::chrono::microseconds(100));
      EXPECT_FALSE(reports.end({}, rank != 1, [&] { return rank == asked; }));
    });
}

}  // namespace
}  // namespace tessera
