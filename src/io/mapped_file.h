#pragma once
// A file mapped read-only: the ranks of a node share one copy of its pages.

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace tessera {

/// The file must not shrink while it is mapped: reading a page that is gone ends the process (SIGBUS). Files that are
/// replaced by a rename, as write_file_atomically does, stay whole for those who have the old one mapped.
class MappedFile {
 public:
  /// @throws UserError naming the file when it cannot be opened or mapped. An empty file gives an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path&);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  /// Lets go of the pages that lie wholly in `part`: they leave this process's resident memory, and come from the file again if they are
  /// read once more. What is not part of the mapping is left alone.
  void forget(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace tessera
