//   new name beside the file -> write -> fsync -> rename over the file -> fsync of the folder
// After any of these steps a kill or a power cut leaves the old file or the new one, and at most a temporary beside it.

#include "io/files.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <vector>

#include "core/error.h"
#include "io/file_descriptor.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBufferBytes = size_t{1} << 20;

fs::path folder_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : fs::path("."); }

constexpr std::string_view kTemporaryMark = ".tmp-";
constexpr size_t kRandomDigits = 16, kLongestName = 255;  // NAME_MAX of every common file system

/// Not of the process id: two containers, or two hosts, have equal ones.
uint64_t random_word() {
  uint64_t word = 0;
  if (::getrandom(&word, sizeof(word), 0) == sizeof(word)) return word;
  std::random_device source;  // a kernel without the call
  return (uint64_t{source()} << 32) | source();
}

/// The beginning of a name, no longer than `bytes`, that does not end within a UTF-8 character.
std::string shortened(const std::string& name, size_t bytes) {
  if (name.size() <= bytes) return name;
  while (bytes > 0 && (static_cast<unsigned char>(name[bytes]) & 0xC0) == 0x80) --bytes;
  return name.substr(0, bytes);
}

bool is_temporary(std::string_view name) {
  const size_t mark = name.rfind(kTemporaryMark);
  if (mark == std::string_view::npos || name[0] != '.') return false;
  const std::string_view end = name.substr(mark + kTemporaryMark.size());
  const bool is_process = end.find_first_not_of("0123456789") == std::string_view::npos;  // of earlier versions
  const bool is_random =
      end.size() == kRandomDigits && end.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  return !end.empty() && (is_process || is_random);
}

/// A new, empty temporary of this call's own.
fs::path claim_temporary(const fs::path& file) {
  while (true) {
    fs::path temporary = temporary_beside(file);
    // O_EXCL: of two processes that draw the same name one gets it, and the other draws again.
    const int descriptor = ::open(temporary.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (descriptor >= 0) {
      ::close(descriptor);
      return temporary;
    }
    if (errno != EEXIST && errno != EINTR) throw_file_error(file, "cannot be created", errno);
  }
}

/// Runs `write` and syncs; its errors about the temporary are told about the file that the user knows.
void write_temporary(const fs::path& file, const fs::path& temporary,
                     const std::function<void(const fs::path&)>& write) {
  try {
    write(temporary);
    // The contents before the name: renamed first, a power cut could leave the new name with nothing behind it.
    FileDescriptor::open_to_read(temporary).sync();
  } catch (const UserError& error) {
    if (error.where() != temporary.string()) throw;
    throw UserError(file.string(), error.message(), error.hint());
  }
  std::error_code failure;
  // The one moment at which the file changes: readers have the old one or the new one open.
  fs::rename(temporary, file, failure);
  if (failure) throw_file_error(file, "cannot be written", failure.value());
}

}  // namespace

std::string read_text_file(const fs::path& path) {
  const FileDescriptor file = FileDescriptor::open_to_read(path);
  // One byte more than the size: a short read then proves the end. Files of /proc, whose size is 0, take the loop.
  std::string text(static_cast<size_t>(file.size()) + 1, '\0');
  size_t length = 0;
  while (true) {
    length += file.read(std::as_writable_bytes(std::span(text).subspan(length)));
    if (length < text.size()) break;
    text.resize(text.size() + kBufferBytes);
  }
  text.resize(length);
  return text;
}

fs::path temporary_beside(const fs::path& file) {
  const size_t added = 1 + kTemporaryMark.size() + kRandomDigits;
  return folder_of(file) / fmt::format(".{}{}{:016x}", shortened(file.filename().string(), kLongestName - added),
                                       kTemporaryMark, random_word());
}

void write_file_atomically(const fs::path& file, const std::function<void(const fs::path& temporary)>& write) {
  const fs::path temporary = claim_temporary(file);
  try {
    write_temporary(file, temporary, write);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
  // The rename itself is lasting only when its folder is on the disk.
  sync_folder(folder_of(file));
}

void write_text_file(const fs::path& file, std::string_view text) {
  write_file_atomically(file, [&](const fs::path& temporary) {
    FileDescriptor::create(temporary).write(std::as_bytes(std::span(text)));
  });
}

void create_folder(const fs::path& folder) {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) throw_file_error(folder, "the folder cannot be made", failure.value());
}

void sync_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

void remove_temporaries(const fs::path& folder) {
  std::error_code ignored;  // who cannot remove them can still work
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored))
    if (is_temporary(entry.path().filename().string())) fs::remove_all(entry.path(), ignored);
}

std::string hex_text(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<int>(byte));
  return text;
}

}  // namespace tessera
