#include "comm/threads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>

#include "pretended_ranks.h"

namespace tessera::test {
namespace {

/// Sets an environment variable (or removes it, with nullptr) for the life of the object.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value ? setenv(name, value, 1) : unsetenv(name);
  }
  ~ScopedVariable() { old_.empty() ? unsetenv(name_) : setenv(name_, old_.c_str(), 1); }

 private:
  const char* name_;
  std::string old_;
};

PretendedRanks node(int ranks) { return PretendedRanks(std::vector<std::string>(ranks)); }

class ThreadsPerRank : public ::testing::Test {
 protected:
  ScopedVariable launched_{"OMPI_COMM_WORLD_SIZE", "4"};
  ScopedVariable no_openmp_{"OMP_NUM_THREADS", nullptr};
};

TEST_F(ThreadsPerRank, UnboundRanksShareTheMachine) {
  const Cores cores{.available = 16, .bound = 16};
  EXPECT_EQ(threads_per_rank(node(1), cores).threads, 16);
  EXPECT_EQ(threads_per_rank(node(3), cores).threads, 5);
  EXPECT_EQ(threads_per_rank(node(16), cores).threads, 1);
  EXPECT_EQ(threads_per_rank(node(3), cores).notice, "");
}

TEST_F(ThreadsPerRank, IsOneWithMoreRanksThanCores) {
  const ThreadPlan plan = threads_per_rank(node(8), {.available = 2, .bound = 2});
  EXPECT_EQ(plan.threads, 1);
  EXPECT_EQ(plan.notice, "");
}

TEST_F(ThreadsPerRank, RanksBoundToSocketsShareTheSocket) {
  EXPECT_EQ(threads_per_rank(node(4), {.available = 16, .bound = 8}).threads, 4);
  EXPECT_EQ(threads_per_rank(node(4), {.available = 16, .bound = 8}).notice, "");
}

TEST_F(ThreadsPerRank, SaysThatABindingLeavesCoresIdle) {
  const ThreadPlan plan = threads_per_rank(node(2), {.available = 8, .bound = 1});
  EXPECT_EQ(plan.threads, 1);
  EXPECT_EQ(
      plan.notice,
      "the launcher binds a rank to 1 of this machine's 8 cores, which leaves 6 idle; give mpirun `--bind-to none` to "
      "use them");
}

TEST_F(ThreadsPerRank, AUsersOwnMaskNeedsNoNotice) {
  const ScopedVariable alone("OMPI_COMM_WORLD_SIZE", nullptr), no_pmix("PMIX_RANK", nullptr),
      no_pmi("PMI_RANK", nullptr);
  const ThreadPlan plan = threads_per_rank(node(1), {.available = 8, .bound = 2});
  EXPECT_EQ(plan.threads, 2);
  EXPECT_EQ(plan.notice, "");
}

TEST_F(ThreadsPerRank, AQuotaBelowTheMaskCounts) {
  EXPECT_EQ(threads_per_rank(node(2), {.available = 4, .bound = 64}).threads, 2);
}

TEST_F(ThreadsPerRank, TheRecipeWinsOverOpenMpAndOpenMpOverTheMachine) {
  const ScopedVariable openmp("OMP_NUM_THREADS", "3,1");
  EXPECT_EQ(threads_per_rank(node(1), {.available = 8, .bound = 8}).threads, 3);
  EXPECT_EQ(threads_per_rank(node(1), {.available = 8, .bound = 8}, 5).threads, 5);
}

TEST_F(ThreadsPerRank, NonsenseFromOpenMpIsNoNumberOfThreads) {
  const Cores cores{.available = 8, .bound = 8};
  const ScopedVariable many("OMP_NUM_THREADS", "99999999999");
  EXPECT_EQ(threads_per_rank(node(1), cores).threads, 1024);
  for (const char* text : {"-3", "abc", ""}) {
    const ScopedVariable nonsense("OMP_NUM_THREADS", text);
    EXPECT_EQ(threads_per_rank(node(1), cores).threads, 8);
  }
}

TEST(FindCores, SeesABindingAndLeavesTheMaskAsItWas) {
  cpu_set_t before, one, after;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const int available = find_cores().available;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  const Cores cores = find_cores();
  ASSERT_EQ(sched_getaffinity(0, sizeof after, &after), 0);
  sched_setaffinity(0, sizeof before, &before);
  EXPECT_EQ(cores.bound, 1);
  EXPECT_EQ(cores.available, available);
  EXPECT_TRUE(CPU_EQUAL(&one, &after));
}

}  // namespace
}  // namespace tessera::test
