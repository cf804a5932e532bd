#pragma once
// flock: one process at a time. The kernel lets go of it when the process ends, however it ends.

#include <sys/file.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "io/file_descriptor.h"

namespace tessera {

/// An exclusive lock on an open file, held while this lives; the descriptor must outlive it.
class FileLock {
 public:
  using Flock = int (*)(int descriptor, int operation);
  /// Nothing when another process still holds it after `patience`. On a file system without locks (ENOSYS, EOPNOTSUPP,
  /// ENOLCK) a lock that keeps nobody away: see notice().
  /// @param call  the system's flock, or a test's
  /// @throws UserError naming the file when it cannot be locked for another reason
  static std::optional<FileLock> take(const FileDescriptor&, std::chrono::milliseconds patience, Flock call = ::flock);
  /// The same for a wait that a stop may end. @param work  as in leave_if_asked. @throws Stopped
  static std::optional<FileLock> wait(const FileDescriptor&, std::chrono::milliseconds patience, std::string_view work);
  FileLock(FileLock&&) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

  /// What is to be told of a lock that keeps nobody away, the first time that this process asks; empty otherwise.
  std::string notice() const;

 private:
  FileLock(const FileDescriptor& file, bool is_real) : file_(&file), is_real_(is_real) {}
  const FileDescriptor* file_;  // nullptr: moved from
  bool is_real_;
};

}  // namespace tessera
