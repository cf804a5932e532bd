#include "comm/threads.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <future>
#include <system_error>
#include <thread>
#include <vector>

#include "core/error.h"

namespace tessera {
namespace {

constexpr int kMostCores = 8192;
constexpr long kMostThreads = 1024;  // as of run.threads

class AffinityMask {
 public:
  AffinityMask() : set_(CPU_ALLOC(kMostCores)) { CPU_ZERO_S(bytes(), set_); }
  ~AffinityMask() { CPU_FREE(set_); }
  AffinityMask(const AffinityMask&) = delete;
  static size_t bytes() { return CPU_ALLOC_SIZE(kMostCores); }
  void fill() { std::memset(set_, 0xff, bytes()); }
  bool read() { return sched_getaffinity(0, bytes(), set_) == 0; }
  bool apply() const { return sched_setaffinity(0, bytes(), set_) == 0; }
  int count() const { return CPU_COUNT_S(bytes(), set_); }

 private:
  cpu_set_t* set_;
};

/// Cores of the widest mask the kernel grants: it cuts a mask of all cores down to the cpuset.
int cores_of_cpuset(const AffinityMask& current) {
  AffinityMask widest;
  widest.fill();
  if (!widest.apply() || !widest.read()) return current.count();
  current.apply();
  return widest.count();
}

/// Cores' worth of time that the control group may use, or 0 for no limit.
int cores_of_quota() {
  double quota = 0, period = 0;  // microseconds
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2) {
    v2 >> quota >> period;  // "max 100000" fails here and leaves zeros
  } else {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(std::lround(quota / period))) : 0;
}

int openmp_threads() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  return text ? static_cast<int>(std::clamp(std::strtol(text, nullptr, 10), 0L, kMostThreads)) : 0;
}

}  // namespace

Cores find_cores() {
  AffinityMask mask;
  if (!mask.read()) return {};
  Cores cores{.available = cores_of_cpuset(mask), .bound = mask.count()};
  if (const int quota = cores_of_quota(); quota > 0) cores.available = std::min(cores.available, quota);
  return cores;
}

ThreadPlan threads_per_rank(const Communicator& world, const Cores& cores, int wanted) {
  if (wanted > 0) return {wanted, {}};
  if (const int threads = openmp_threads(); threads > 0) return {threads, {}};
  const int ranks = world.local_size();
  const int share = std::max(1, cores.available / ranks);
  ThreadPlan plan{.threads = std::clamp(cores.bound, 1, share), .notice = {}};
  if (plan.threads < share && launched_by_mpi())
    plan.notice = fmt::format(
        "the launcher binds a rank to {} of this machine's {} cores, which leaves {} idle; give mpirun `--bind-to "
        "none` to "
        "use them",
        cores.bound, cores.available, cores.available - ranks * plan.threads);
  return plan;
}

bool can_start_threads(int count) {
  std::promise<void> end;
  const std::shared_future<void> ended = end.get_future().share();
  std::vector<std::thread> threads;
  bool all = true;
  try {
    while (static_cast<int>(threads.size()) < count) threads.emplace_back([ended] { ended.wait(); });
  } catch (const std::system_error&) {
    all = false;
  }
  end.set_value();
  for (std::thread& thread : threads) thread.join();
  return all;
}

}  // namespace tessera
