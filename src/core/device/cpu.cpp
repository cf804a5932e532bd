#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/out_of_memory.h"

namespace tessera {
namespace {

class CpuMemory final : public DeviceMemory {
 public:
  std::byte* allocate(int64_t bytes) override {
    const size_t rounded = (static_cast<size_t>(std::max<int64_t>(bytes, 1)) + 63) / 64 * 64;
    void* memory = std::aligned_alloc(64, rounded);
    if (memory == nullptr)
      throw OutOfMemory("", fmt::format("out of memory: {} MB could not be reserved", rounded >> 20));
    std::memset(memory, 0, rounded);
    return static_cast<std::byte*>(memory);
  }
  void free(std::byte* memory) noexcept override { std::free(memory); }
  void zero(std::byte* to, int64_t bytes) override { std::memset(to, 0, static_cast<size_t>(bytes)); }
  void copy(std::byte* to, const std::byte* from, int64_t bytes) override {
    std::memmove(to, from, static_cast<size_t>(bytes));
  }
  void upload(std::byte* to, const std::byte* from, int64_t bytes) override { copy(to, from, bytes); }
  void download(std::byte* to, const std::byte* from, int64_t bytes) override { copy(to, from, bytes); }
};

}  // namespace

DeviceMemory& cpu_memory() {
  static CpuMemory memory;
  return memory;
}

}  // namespace tessera
