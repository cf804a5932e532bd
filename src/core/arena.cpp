#include "core/arena.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {

Arena Arena::counting(Device device) {
  Arena arena;
  arena.device_ = device;
  arena.capacity_ = std::numeric_limits<int64_t>::max();
  return arena;
}

Arena::Arena(int64_t capacity_bytes, Device device)
    : memory_(memory_of(device).allocate(capacity_bytes)), owns_(true), device_(device), capacity_(capacity_bytes) {}

Arena::Arena(Arena&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      owns_(other.owns_),
      device_(other.device_),
      capacity_(other.capacity_),
      used_(other.used_),
      peak_(other.peak_) {}

Arena::~Arena() {
  if (memory_ && owns_) memory_of(device_).free(memory_);
}

Arena Arena::shifted(int64_t shift, Device device) const {
  Arena arena;
  arena.memory_ = memory_ ? memory_ + shift : nullptr;
  arena.device_ = device;
  arena.capacity_ = capacity_;
  arena.used_ = arena.peak_ = used_;
  return arena;
}

TensorView Arena::allocate(Shape shape, DType dtype) {
  const int64_t bytes = (shape.count() * size_of(dtype) + 63) / 64 * 64;
  if (bytes > capacity_ - used_)
    throw UserError(
        "", fmt::format("the activation arena of {} MB is full: {} more bytes were asked for", capacity_ >> 20, bytes),
        "a batch was larger than the one that memory was planned for");
  // Counting mode: a made-up address that is aligned, not null and never dereferenced.
  std::byte* base = memory_ ? memory_ : reinterpret_cast<std::byte*>(int64_t{64});
  TensorView view(base + used_, shape, dtype, device_);
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return view;
}

}  // namespace tessera
