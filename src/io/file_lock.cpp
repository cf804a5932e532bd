// flock, and not fcntl's locks: those would be let go of when any descriptor of the file in this process is closed.

#include "io/file_lock.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/stop.h"

namespace tessera {
namespace {

bool has_no_locks(int error) { return error == ENOSYS || error == EOPNOTSUPP || error == ENOLCK; }

}  // namespace

std::optional<FileLock> FileLock::take(const FileDescriptor& file, std::chrono::milliseconds patience, Flock call) {
  using std::chrono::microseconds;
  const auto give_up = std::chrono::steady_clock::now() + patience;
  // Short waits that grow: a lock is mostly held for the time of one fsync.
  for (microseconds pause{100}; call(file.get(), LOCK_EX | LOCK_NB) != 0;
       pause = std::min(2 * pause, microseconds{5000})) {
    if (has_no_locks(errno)) return FileLock(file, false);
    if (errno != EWOULDBLOCK && errno != EINTR) throw_file_error(file.path(), "cannot be locked", errno);
    if (std::chrono::steady_clock::now() >= give_up) return std::nullopt;
    std::this_thread::sleep_for(pause);
  }
  return FileLock(file, true);
}

std::optional<FileLock> FileLock::wait(const FileDescriptor& file, std::chrono::milliseconds patience,
                                       std::string_view work) {
  using std::chrono::milliseconds;
  // In slices, so that a stop is seen soon.
  for (milliseconds left = patience;; left -= milliseconds{50}) {
    if (auto lock = take(file, std::clamp(left, milliseconds{0}, milliseconds{50}))) return lock;
    if (left <= milliseconds{50}) return std::nullopt;
    leave_if_asked(work);
  }
}

FileLock::FileLock(FileLock&& other) noexcept : file_(std::exchange(other.file_, nullptr)), is_real_(other.is_real_) {}

FileLock::~FileLock() {
  // Said at once, since the descriptor may stay open for longer.
  if (file_ && is_real_) ::flock(file_->get(), LOCK_UN);
}

std::string FileLock::notice() const {
  // Once a process: every lock on such a file system would say the same.
  static std::atomic<bool> told{false};
  if (is_real_ || told.exchange(true)) return "";
  return fmt::format(
      "{}: this file system has no locks (flock), so nothing keeps a second process out: start only one for a folder",
      file_->path().parent_path().string());
}

}  // namespace tessera
