#include "io/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <vector>

#include "core/error.h"
#include "io/file_descriptor.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBufferBytes = size_t{1} << 20;

fs::path folder_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : fs::path("."); }

constexpr std::string_view kTemporaryMark = ".tmp-";

fs::path temporary_of(const fs::path& file) {
  return folder_of(file) / fmt::format(".{}{}{}", file.filename().string(), kTemporaryMark, ::getpid());
}

bool is_temporary(std::string_view name) {
  const size_t mark = name.rfind(kTemporaryMark);
  if (mark == std::string_view::npos || name[0] != '.') return false;
  const std::string_view process = name.substr(mark + kTemporaryMark.size());
  return !process.empty() && process.find_first_not_of("0123456789") == std::string_view::npos;
}

/// Runs `write` and syncs; its errors about the temporary are told about the file that the user knows.
void write_temporary(const fs::path& file, const fs::path& temporary,
                     const std::function<void(const fs::path&)>& write) {
  try {
    write(temporary);
    FileDescriptor::open_to_read(temporary).sync();
  } catch (const UserError& error) {
    if (error.where() != temporary.string()) throw;
    throw UserError(file.string(), error.message(), error.hint());
  }
  std::error_code failure;
  fs::rename(temporary, file, failure);
  if (failure) throw_file_error(file, "cannot be written", failure.value());
}

}  // namespace

std::string read_text_file(const fs::path& path) {
  const FileDescriptor file = FileDescriptor::open_to_read(path);
  // One byte more than the size: a short read then proves the end. Pipes, whose size is 0, take the loop.
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

void write_file_atomically(const fs::path& file, const std::function<void(const fs::path& temporary)>& write) {
  const fs::path temporary = temporary_of(file);
  try {
    write_temporary(file, temporary, write);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
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
  if (failure) throw UserError(folder.string(), fmt::format("the folder cannot be made: {}", failure.message()));
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
    if (is_temporary(entry.path().filename().string())) fs::remove(entry.path(), ignored);
}

std::string hex_text(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<int>(byte));
  return text;
}

}  // namespace tessera
