#include "io/mapped_file.h"

#include <unistd.h>

#include <cerrno>

#include "io/file_descriptor.h"

namespace tessera {

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path, Map map) {
  struct Constructible : MappedFile {};  // lets make_shared reach the private constructor
  const FileDescriptor descriptor = FileDescriptor::open_to_read(path);
  auto file = std::make_shared<Constructible>();
  file->path_ = path;
  if (::fstat(descriptor.get(), &file->opened_) != 0) throw_file_error(path, "cannot be read", errno);
  const auto size = static_cast<size_t>(file->opened_.st_size);
  if (size == 0) return file;  // mmap refuses a length of 0
  void* address = MAP_FAILED;
  // Shared, so that the ranks of a node have one copy of the pages among them.
  for (const int kind : {MAP_SHARED, MAP_PRIVATE}) {
    address = map(nullptr, size, PROT_READ, kind, descriptor.get(), 0);
    if (address != MAP_FAILED) break;
    if (errno != ENODEV) throw_file_error(path, "cannot be mapped into memory", errno);
  }
  if (address == MAP_FAILED) {
    // Neither kind: the bytes in memory of our own, read once.
    file->copy_ = Tensor({static_cast<int64_t>(size)}, DType::u8);
    address = file->copy_.view().mutable_data();
    const size_t read = descriptor.read({static_cast<std::byte*>(address), size});
    if (read != size) throw_file_error(path, "became shorter while it was read", EIO);
  }
  file->bytes_ = {static_cast<const std::byte*>(address), size};
  return file;
}

MappedFile::Change MappedFile::change() const {
  struct stat now;
  // Another file under the name: who has mapped the old one still has its bytes.
  if (::stat(path_.c_str(), &now) != 0 || now.st_ino != opened_.st_ino || now.st_dev != opened_.st_dev)
    return Change::replaced;
  // Time and size: a write that keeps both, to the nanosecond, goes unseen.
  const bool is_same = now.st_size == opened_.st_size && now.st_mtim.tv_sec == opened_.st_mtim.tv_sec &&
                       now.st_mtim.tv_nsec == opened_.st_mtim.tv_nsec;
  return is_same ? Change::none : Change::altered;
}

void MappedFile::forget(std::span<const std::byte> part) const {
  if (!is_mapped() || part.data() < bytes_.data() || part.data() + part.size() > bytes_.data() + bytes_.size()) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));  // the mapping begins with one
  // Whole pages only: the first and the last may hold bytes of others.
  const auto begin = (static_cast<size_t>(part.data() - bytes_.data()) + page - 1) / page * page;
  const size_t end = static_cast<size_t>(part.data() + part.size() - bytes_.data()) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);  // a hint
}

MappedFile::~MappedFile() {
  if (!bytes_.empty() && is_mapped()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace tessera
