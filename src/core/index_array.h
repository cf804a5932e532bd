#pragma once
// Arrays of indices, or of small records of them, that say where an op reads and writes: token ids, positions, rows,
// segments.

#include <concepts>
#include <span>

#include "core/tensor.h"

namespace tessera {

/// Non-owning, read-only, trivially copyable: the host's array, and the same array where the kernels of a device read
/// it. On the CPU the two are one. Checks and the host's own arithmetic read `host()`;
/// ops read the elements on the device.
template <class T> class IndexArray {
 public:
  IndexArray() = default;
  /// An array of the host, for ops on the CPU.
  template <class Range>
  requires std::convertible_to<const Range&, std::span<const T>> IndexArray(const Range& host)
      : IndexArray(std::span<const T>(host), std::span<const T>(host).data(), Device{}) {}
  IndexArray(const T* host, size_t count) : IndexArray(std::span<const T>(host, count)) {}
  /// @param data  of as many elements on the device
  IndexArray(std::span<const T> host, const T* data, Device device) : host_(host), data_(data), device_(device) {}

  size_t size() const { return host_.size(); }
  bool empty() const { return host_.empty(); }
  Device device() const { return device_; }
  std::span<const T> host() const { return host_; }
  IndexArray subspan(size_t first, size_t count) const { return {host_.subspan(first, count), data_ + first, device_}; }

  // For kernels of the device.
  const T* data() const { return data_; }
  const T& operator[](size_t i) const { return data_[i]; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size(); }

 private:
  std::span<const T> host_;
  const T* data_ = nullptr;
  Device device_;
};

}  // namespace tessera
