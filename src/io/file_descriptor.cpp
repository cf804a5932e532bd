// System calls as they have to be called: again when a signal has interrupted them, and in a loop where they may do
// less than they were asked to.

#include "io/file_descriptor.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace tessera {
namespace {

// A signal interrupts a waiting system call (USR1 asks a run to stop): it is simply made again.
template <class Call> auto retry_interrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

constexpr std::string_view kLfsPointer = "version https://git-lfs.github.com/spec/";

const char* kind_of(mode_t mode) {
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

const char* hint_of_permissions(int error) {
  if (error == EACCES || error == EPERM) return "change its permissions or those of its folder, or name another place";
  return error == EROFS ? "the file system takes no changes: name another place" : "";
}

}  // namespace

void throw_file_error(const std::filesystem::path& path, const std::string& what, int error) {
  const bool is_full = error == ENOSPC || error == EDQUOT;
  throw UserError(path.string(), fmt::format("{}: {}", what, std::generic_category().message(error)),
                  is_full          ? "free some space, or choose another folder"
                  : error == EFBIG ? "raise the limit of a file's size (ulimit -f), or choose another folder"
                                   : hint_of_permissions(error));
}

// O_CLOEXEC: a program that is started from here does not inherit the descriptor, and with it a lock.
FileDescriptor::FileDescriptor(std::filesystem::path path, int flags)
    : path_(std::move(path)),
      descriptor_(retry_interrupted([&] { return ::open(path_.c_str(), flags | O_CLOEXEC, 0666); })) {
  if (descriptor_ < 0) throw_file_error(path_, flags & O_CREAT ? "cannot be created" : "cannot be opened", errno);
}

FileDescriptor FileDescriptor::open_to_read(const std::filesystem::path& path) {
  FileDescriptor file(path, O_RDONLY | O_NONBLOCK);  // a pipe without a writer would be waited for; files do not care
  struct stat status;
  if (::fstat(file.descriptor_, &status) != 0) throw_file_error(path, "cannot be opened", errno);
  if (S_ISDIR(status.st_mode)) throw_file_error(path, "cannot be opened", EISDIR);
  if (!S_ISREG(status.st_mode))
    throw UserError(path.string(), fmt::format("is {} and no file", kind_of(status.st_mode)),
                    "write what comes from there to a file, and name that: files are read more than once");
  if (file.begins_with(kLfsPointer))
    throw UserError(path.string(), "is a git-lfs pointer: the file itself was not fetched",
                    "run \"git lfs pull\" in its repository, or download the file");
  return file;
}

FileDescriptor FileDescriptor::open_to_change(const std::filesystem::path& path) { return {path, O_RDWR}; }

FileDescriptor FileDescriptor::open_or_create(const std::filesystem::path& path) { return {path, O_RDWR | O_CREAT}; }

FileDescriptor FileDescriptor::create(const std::filesystem::path& path) {
  return {path, O_WRONLY | O_CREAT | O_TRUNC};
}

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

FileDescriptor::~FileDescriptor() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool FileDescriptor::begins_with(std::string_view text) const {
  std::string front(text.size(), '\0');
  return read_at(0, std::as_writable_bytes(std::span(front))) == text.size() && front == text;
}

int64_t FileDescriptor::size() const {
  struct stat status;
  if (::fstat(descriptor_, &status) != 0) throw_file_error(path_, "cannot be read", errno);
  return status.st_size;
}

size_t FileDescriptor::read(std::span<std::byte> bytes) const {
  size_t done = 0;
  // A read may give less than was asked for without being at the end; only 0 says that.
  while (done < bytes.size()) {
    const ssize_t n = retry_interrupted([&] { return ::read(descriptor_, bytes.data() + done, bytes.size() - done); });
    if (n < 0) throw_file_error(path_, "cannot be read", errno);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

size_t FileDescriptor::read_at(int64_t byte, std::span<std::byte> bytes) const {
  size_t done = 0;
  while (done < bytes.size()) {
    // pread names its place: the descriptor's own position, which all its users share, is neither used nor moved.
    const off_t place = byte + static_cast<off_t>(done);
    const ssize_t n =
        retry_interrupted([&] { return ::pread(descriptor_, bytes.data() + done, bytes.size() - done, place); });
    if (n < 0) throw_file_error(path_, "cannot be read", errno);
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

void FileDescriptor::seek(int64_t byte) const {
  if (::lseek(descriptor_, byte, SEEK_SET) < 0) throw_file_error(path_, "cannot be read", errno);
}

void FileDescriptor::write(std::span<const std::byte> bytes) const {
  // A write may take less than it was given.
  while (!bytes.empty()) {
    const ssize_t n = retry_interrupted([&] { return ::write(descriptor_, bytes.data(), bytes.size()); });
    if (n < 0) throw_file_error(path_, "cannot be written", errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void FileDescriptor::write_at(int64_t byte, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t n = retry_interrupted([&] { return ::pwrite(descriptor_, bytes.data(), bytes.size(), byte); });
    if (n < 0) throw_file_error(path_, "cannot be written", errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
    byte += n;
  }
}

void FileDescriptor::truncate(int64_t bytes) const {
  if (retry_interrupted([&] { return ::ftruncate(descriptor_, bytes); }) != 0)
    throw_file_error(path_, "cannot be written", errno);
}

void FileDescriptor::sync() const {
  if (retry_interrupted([&] { return ::fsync(descriptor_); }) != 0) throw_file_error(path_, "cannot be written", errno);
}

}  // namespace tessera
