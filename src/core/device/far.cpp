// The addresses that are handed out lie in a range that is reserved and never mapped;
// their pages lie kRange further on:
//
//   |<- kRange: no access ->|<- kRange: pages, where something was allocated ->|
//    address                 address + far_shift()

#include <sys/mman.h>

#include <cstring>
#include <map>
#include <mutex>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/out_of_memory.h"

namespace tessera {
namespace {

constexpr int64_t kRange = int64_t{1} << 40, kPage = 4096;

class FarMemory final : public DeviceMemory {
 public:
  FarMemory() {
    void* range = mmap(nullptr, 2 * kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TS_CHECK(range != MAP_FAILED, "no address range for the far device");
    next_ = static_cast<std::byte*>(range);
  }
  std::byte* allocate(int64_t bytes) override {
    const std::lock_guard lock(mutex_);
    const int64_t size = (std::max<int64_t>(bytes, 1) + kPage - 1) / kPage * kPage;
    std::byte* address = next_;
    if (mprotect(near(address), static_cast<size_t>(size), PROT_READ | PROT_WRITE) != 0)
      throw OutOfMemory("", fmt::format("out of memory: {} MB could not be reserved", size >> 20));
    next_ += size;  // an address is never given twice: what reads freed memory dies
    sizes_[address] = size;
    return address;
  }
  void free(std::byte* address) noexcept override {
    const std::lock_guard lock(mutex_);
    const auto found = sizes_.find(address);
    if (found == sizes_.end()) return;
    // Should it fail, the pages stay: reads of freed memory are then not found, and nothing else is lost.
    static_cast<void>(mmap(near(address), static_cast<size_t>(found->second), PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0));
    sizes_.erase(found);
  }
  void zero(std::byte* to, int64_t bytes) override { std::memset(near(to), 0, static_cast<size_t>(bytes)); }
  void copy(std::byte* to, const std::byte* from, int64_t bytes) override {
    std::memmove(near(to), near(from), static_cast<size_t>(bytes));
  }
  void upload(std::byte* to, const std::byte* from, int64_t bytes) override {
    std::memcpy(near(to), from, static_cast<size_t>(bytes));
  }
  void download(std::byte* to, const std::byte* from, int64_t bytes) override {
    std::memcpy(to, near(from), static_cast<size_t>(bytes));
  }

 private:
  static std::byte* near(const std::byte* address) { return const_cast<std::byte*>(address) + kRange; }
  std::mutex mutex_;
  std::byte* next_;
  std::map<std::byte*, int64_t> sizes_;
};

}  // namespace

DeviceMemory& far_memory() {
  static FarMemory memory;
  return memory;
}

int64_t far_shift() { return kRange; }

}  // namespace tessera
