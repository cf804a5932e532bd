#pragma once
// A file mapped read-only: the ranks of a node share one copy of its pages.

#include <sys/mman.h>
#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

#include "core/tensor.h"

namespace tessera {

/// The file must not shrink while it is mapped: reading a page that is gone ends the process (SIGBUS). Files that are
/// replaced by a rename, as write_file_atomically does, stay whole for those who have the old one mapped.
class MappedFile {
 public:
  using Map = void* (*)(void*, size_t, int, int, int, off_t);
  /// Where a file system has no shared mappings (ENODEV) the mapping is private; where it has none at all, the file is
  /// read into this process's memory (is_mapped).
  /// @param map  the system's mmap, or a test's
  /// @throws UserError naming the file when it cannot be opened or mapped. An empty file gives an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path&, Map map = ::mmap);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  bool is_mapped() const { return !copy_.shape().rank; }

  /// What has happened since to the file at the path, by its size, time and inode. replaced: it is another file or
  /// gone, and these bytes are as they were; altered: it was written to, and these bytes may be others now.
  enum class Change { none, replaced, altered };
  Change change() const;
  /// Lets go of the pages that lie wholly in `part`: they leave this process's resident memory, and come from the file
  /// again if they are read once more. What is not part of the mapping is left alone.
  void forget(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  struct stat opened_ {};
  Tensor copy_;  // of a file that cannot be mapped
  std::span<const std::byte> bytes_;
};

}  // namespace tessera
