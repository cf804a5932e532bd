#include "cli/memory_limit.h"

#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <vector>

#include "core/error.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

/// Where a hierarchy of groups is mounted, and which of its groups lies there: in a container its own.
struct Mount {
  fs::path point;
  std::string group;
};

std::vector<std::string> words_of(const std::string& text, char separator) {
  std::vector<std::string> words;
  std::istringstream line(text);
  for (std::string word; std::getline(line, word, separator);) words.push_back(word);
  return words;
}

bool contains(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

/// Mounts of type "cgroup2", or "cgroup" with the memory controller. A line of mountinfo:
///   32 31 0:29 /docker/1f /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
std::vector<Mount> mounts(const fs::path& root, bool version_2) {
  std::vector<Mount> found;
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const auto words = words_of(line, ' ');
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 5 || words.end() - dash < 4) continue;
    const bool is_ours =
        version_2 ? dash[1] == "cgroup2" : dash[1] == "cgroup" && contains(words_of(dash[3], ','), "memory");
    if (is_ours) found.push_back({root / fs::path(words[4]).relative_path(), words[3]});
  }
  return found;
}

/// This process's group in the hierarchy of version 2 ("0::/a/b"),
/// or in that of the memory controller ("4:memory:/a/b").
std::string group_of(const fs::path& root, bool version_2) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (version_2 ? controllers.empty() : contains(words_of(controllers, ','), "memory"))
      return line.substr(second + 1);
  }
  return "";
}

/// What the group's file says; kNoLimit for "max", or when there is none.
int64_t limit_in(const fs::path& file) {
  int64_t bytes = 0;
  return std::ifstream(file) >> bytes ? bytes : kNoLimit;
}

void lower_to_groups(const fs::path& root, bool version_2, MemoryLimit& limit) {
  const std::string group = group_of(root, version_2);
  for (const Mount& mount : mounts(root, version_2)) {
    const bool is_below = mount.group != "/" && group.rfind(mount.group, 0) == 0;
    fs::path below = fs::path(is_below ? group.substr(mount.group.size()) : group).relative_path();
    for (bool done = false; !done; below = below.parent_path()) {
      done = below.empty();
      const int64_t bytes = limit_in(mount.point / below / (version_2 ? "memory.max" : "memory.limit_in_bytes"));
      if (bytes < limit.bytes) limit = {bytes, fmt::format("and the control group /{} allows", below.string())};
    }
  }
}

/// Bytes of a field of /proc/self/statm: 0 the whole address space, 1 resident, 2 of these in files, 5 data.
int64_t statm(int field) {
  std::ifstream file("/proc/self/statm");
  int64_t pages = 0;
  for (int i = 0; i <= field; ++i) file >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

int64_t left_of(int resource, int64_t taken) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return kNoLimit;
  return std::max<int64_t>(0, static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, kNoLimit)) - taken);
}

}  // namespace

MemoryLimit node_memory_limit(const fs::path& root) {
  MemoryLimit limit{static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE), "which has"};
  for (const bool version_2 : {true, false}) lower_to_groups(root, version_2, limit);
  return limit;
}

MemoryLimit process_memory_limit() {
  const int64_t space = left_of(RLIMIT_AS, statm(0)), data = left_of(RLIMIT_DATA, statm(5));
  return space <= data ? MemoryLimit{space, "and the limit of address space (ulimit -v) leaves"}
                       : MemoryLimit{data, "and the limit of data (ulimit -d) leaves"};
}

int64_t held_bytes() { return statm(1) - statm(2); }

}  // namespace tessera
