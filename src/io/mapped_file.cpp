#include "io/mapped_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "io/file_descriptor.h"

namespace tessera {

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  struct Constructible : MappedFile {};  // lets make_shared reach the private constructor
  const FileDescriptor descriptor = FileDescriptor::open_to_read(path);
  const auto size = static_cast<size_t>(descriptor.size());
  auto file = std::make_shared<Constructible>();
  file->path_ = path;
  if (size == 0) return file;  // mmap refuses a length of 0
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor.get(), 0);
  if (address == MAP_FAILED) throw_file_error(path, "cannot be mapped into memory", errno);
  file->bytes_ = {static_cast<const std::byte*>(address), size};
  return file;
}

void MappedFile::forget(std::span<const std::byte> part) const {
  if (part.data() < bytes_.data() || part.data() + part.size() > bytes_.data() + bytes_.size()) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));  // the mapping begins with one
  const auto begin = (static_cast<size_t>(part.data() - bytes_.data()) + page - 1) / page * page;
  const size_t end = static_cast<size_t>(part.data() + part.size() - bytes_.data()) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);  // a hint
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace tessera
