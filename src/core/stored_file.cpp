#include "core/stored_file.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>

namespace tessera {
namespace {

/// Whether the file is of a file system that makes up what is read (/proc, /sys): /proc/kmsg waits,
/// /proc/kcore hardly ends.
bool is_made_up(const std::filesystem::path& path) {
  constexpr std::array<unsigned long, 4> kKernels = {PROC_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, DEBUGFS_MAGIC};
  struct statfs found;
  return ::statfs(path.c_str(), &found) == 0 &&
         std::find(kKernels.begin(), kKernels.end(), static_cast<unsigned long>(found.f_type)) != kKernels.end();
}

}  // namespace

std::string fault_of_file(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(path, ignored);
  if (!std::filesystem::exists(status) || std::filesystem::is_directory(status)) return "";
  if (!std::filesystem::is_regular_file(status)) return "is a pipe or a device and no file";
  return is_made_up(path) ? "is made up by the kernel as it is read and no file" : "";
}

}  // namespace tessera
