#pragma once
// flock: one process at a time. The kernel lets go of it when the process ends, however it ends.

#include <chrono>
#include <optional>

#include "io/file_descriptor.h"

namespace tessera {

/// An exclusive lock on an open file, held while this lives; the descriptor must outlive it.
class FileLock {
 public:
  /// Nothing when another process still holds it after `patience`.
  static std::optional<FileLock> take(const FileDescriptor&, std::chrono::milliseconds patience);
  FileLock(FileLock&&) noexcept;
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

}  // namespace tessera
