#pragma once
// A POSIX file descriptor that closes itself and whose errors name the file.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

/// Every function throws UserError naming the file and the system's reason ("cannot be written: No space left on
/// device").
class FileDescriptor {
 public:
  /// Refuses what is no ordinary file (a folder, a pipe, a device: opening never waits), and the pointer that git-lfs
  /// leaves in place of a file that was not fetched.
  static FileDescriptor open_to_read(const std::filesystem::path&);
  static FileDescriptor open_to_change(const std::filesystem::path&);  // existing, written in place
  static FileDescriptor open_or_create(const std::filesystem::path&);  // the same, or new
  static FileDescriptor create(const std::filesystem::path&);          // new or emptied
  FileDescriptor(FileDescriptor&&) noexcept;
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor();

  int get() const { return descriptor_; }
  const std::filesystem::path& path() const { return path_; }
  int64_t size() const;
  /// Reads until the span is full or the file ends; returns the bytes read.
  size_t read(std::span<std::byte>) const;
  size_t read_at(int64_t byte, std::span<std::byte>) const;
  void seek(int64_t byte) const;
  void write(std::span<const std::byte>) const;  // all of them
  void write_at(int64_t byte, std::span<const std::byte>) const;
  void truncate(int64_t bytes) const;
  void sync() const;  // to the disk

 private:
  bool begins_with(std::string_view) const;
  FileDescriptor(std::filesystem::path, int flags);
  std::filesystem::path path_;
  int descriptor_;
};

/// Throws the UserError of a failed system call, "<path>: <what>: <the system's text for `error`>", with a hint on a
/// full disk.
[[noreturn]] void throw_file_error(const std::filesystem::path&, const std::string& what, int error);

}  // namespace tessera
