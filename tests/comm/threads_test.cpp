#include "comm/threads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>

namespace tessera {
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

/// `ranks` on one machine; nothing else of a communicator is asked.
class Node : public Communicator {
 public:
  explicit Node(int ranks) : ranks_(ranks) {}
  int rank() const override { return 0; }
  int size() const override { return ranks_; }
  int local_rank() const override { return 0; }
  int local_size() const override { return ranks_; }
  void all_reduce_sum(std::span<float>) override {}
  void all_reduce_sum(std::span<double>) override {}
  void all_reduce_max(std::span<double>) override {}
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte>) override { return {}; }
  void broadcast(std::vector<std::byte>&, int) override {}
  void exchange(std::span<const std::byte>, int, std::span<std::byte>, int) override {}
  void barrier() override {}
  std::unique_ptr<Communicator> split(int, int) override { return self_communicator(); }
  void abort(int) override { std::abort(); }

 private:
  int ranks_;
};

class ThreadsPerRank : public ::testing::Test {
 protected:
  ScopedVariable launched_{"OMPI_COMM_WORLD_SIZE", "4"};
  ScopedVariable no_openmp_{"OMP_NUM_THREADS", nullptr};
};

TEST_F(ThreadsPerRank, UnboundRanksShareTheMachine) {
  const Cores cores{.available = 16, .bound = 16};
  EXPECT_EQ(threads_per_rank(Node(1), cores).threads, 16);
  EXPECT_EQ(threads_per_rank(Node(3), cores).threads, 5);
  EXPECT_EQ(threads_per_rank(Node(16), cores).threads, 1);
  EXPECT_EQ(threads_per_rank(Node(3), cores).notice, "");
}

TEST_F(ThreadsPerRank, IsOneWithMoreRanksThanCores) {
  const ThreadPlan plan = threads_per_rank(Node(8), {.available = 2, .bound = 2});
  EXPECT_EQ(plan.threads, 1);
  EXPECT_EQ(plan.notice, "");
}

TEST_F(ThreadsPerRank, RanksBoundToSocketsShareTheSocket) {
  EXPECT_EQ(threads_per_rank(Node(4), {.available = 16, .bound = 8}).threads, 4);
  EXPECT_EQ(threads_per_rank(Node(4), {.available = 16, .bound = 8}).notice, "");
}

TEST_F(ThreadsPerRank, SaysThatABindingLeavesCoresIdle) {
  const ThreadPlan plan = threads_per_rank(Node(2), {.available = 8, .bound = 1});
  EXPECT_EQ(plan.threads, 1);
  EXPECT_EQ(plan.notice,
            "the launcher binds each of the 2 ranks here to 1 of 8 cores, and 6 stay idle; give mpirun `--bind-to none` to "
            "use them");
}

TEST_F(ThreadsPerRank, AUsersOwnMaskNeedsNoNotice) {
  const ScopedVariable alone("OMPI_COMM_WORLD_SIZE", nullptr), no_pmix("PMIX_RANK", nullptr), no_pmi("PMI_RANK", nullptr);
  const ThreadPlan plan = threads_per_rank(Node(1), {.available = 8, .bound = 2});
  EXPECT_EQ(plan.threads, 2);
  EXPECT_EQ(plan.notice, "");
}

TEST_F(ThreadsPerRank, AQuotaBelowTheMaskCounts) {
  EXPECT_EQ(threads_per_rank(Node(2), {.available = 4, .bound = 64}).threads, 2);
}

TEST_F(ThreadsPerRank, TheRecipeWinsOverOpenMpAndOpenMpOverTheMachine) {
  const ScopedVariable openmp("OMP_NUM_THREADS", "3,1");
  EXPECT_EQ(threads_per_rank(Node(1), {.available = 8, .bound = 8}).threads, 3);
  EXPECT_EQ(threads_per_rank(Node(1), {.available = 8, .bound = 8}, 5).threads, 5);
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
}  // namespace tessera
