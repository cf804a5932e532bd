#pragma once
// How many threads a rank computes with: the one place that decides it.

#include <string>

#include "comm/communicator.h"

namespace tessera {

struct ThreadPlan {
  int threads = 1;
  std::string notice;  // what the user should know about it; usually empty
};

/// What a rank can see of its machine.
struct Cores {
  int available = 1;  // that a process here may use: cpuset and CPU quota counted
  int bound = 1;      // of the affinity mask that the rank was started with
};

/// Looks at this process's affinity mask. Call before starting threads: they inherit a mask that is widened for a
/// moment.
Cores find_cores();

/// threads = wanted, if > 0; else OMP_NUM_THREADS, if set; else min(bound, available / local_size), at least 1.
/// The notice tells that the launcher bound the ranks so narrowly that cores of this machine stay idle, which Open
/// MPI's mpirun does for `-n 1` and `-n 2`. Assumes that the ranks of a machine are bound to equal, evenly spread parts
/// of it.
/// @param world  all ranks of the job, not a part of them
ThreadPlan threads_per_rank(const Communicator& world, const Cores& cores = find_cores(), int wanted = 0);

/// Whether so many threads can run beside this one at present. Starts them, and ends them again.
bool can_start_threads(int count);

}  // namespace tessera
