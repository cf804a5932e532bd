#include "steplog/file_lock.h"

#include <sys/file.h>

#include <algorithm>
#include <thread>
#include <utility>

namespace tessera {

std::optional<FileLock> FileLock::take(const FileDescriptor& file, std::chrono::milliseconds patience) {
  using std::chrono::microseconds;
  const auto give_up = std::chrono::steady_clock::now() + patience;
  // Short waits that grow: a lock is mostly held for the time of one fsync.
  for (microseconds pause{100}; ::flock(file.get(), LOCK_EX | LOCK_NB) != 0;
       pause = std::min(2 * pause, microseconds{5000})) {
    if (std::chrono::steady_clock::now() >= give_up) return std::nullopt;
    std::this_thread::sleep_for(pause);
  }
  return FileLock(file.get());
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::flock(descriptor_, LOCK_UN);
}

}  // namespace tessera
