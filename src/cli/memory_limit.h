#pragma once
// How much memory the ranks of this machine may take together, and this process alone.

#include <cstdint>
#include <filesystem>
#include <string>

namespace tessera {

/// A number of bytes, and who says so: "which has", "and the control group /slurm/job_7 allows", ...
struct MemoryLimit {
  int64_t bytes;
  std::string who;
};

/// The least of the machine's memory and the limits of the control groups that this process is in, up to their roots;
/// versions 1 and 2, also where both are mounted, and inside a container, whose own group may be all that is visible.
/// @param root  in place of "/", for tests
MemoryLimit node_memory_limit(const std::filesystem::path& root = "/");

/// What this process may still take of its limits of address space and data (ulimit -v, ulimit -d).
MemoryLimit process_memory_limit();

/// Bytes that this process holds for itself now: pages that lie in no file.
int64_t held_bytes();

}  // namespace tessera
