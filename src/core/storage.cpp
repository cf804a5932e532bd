#include "core/storage.h"

#include <atomic>

namespace tessera {
namespace {

/// Aligned, not null, never dereferenced, and far from those of a counting Arena:
/// kernels compare addresses to find what overlaps.
std::byte* made_up_address(int64_t bytes) {
  static std::atomic<int64_t> next = int64_t{1} << 46;
  return reinterpret_cast<std::byte*>(next.fetch_add((bytes + 127) / 64 * 64));
}

}  // namespace

TensorView Storage::allocate(Shape shape, DType dtype) {
  const int64_t bytes = shape.count() * size_of(dtype);
  bytes_ += bytes;
  if (memory_ == Memory::counted) return TensorView(made_up_address(bytes), shape, dtype, device_);
  return tensors_.emplace_back(shape, dtype, device_).view();
}

}  // namespace tessera
