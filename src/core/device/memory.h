#pragma once
// Memory of a device: reserved, filled, copied. One file a device;
// nothing else in the program takes or copies device memory.

#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace tessera {

/// What one device does with bytes. Addresses of a device other than the CPU mean nothing to the host.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  /// Zeros, from an address that is a multiple of 64. @throws OutOfMemory
  virtual std::byte* allocate(int64_t bytes) = 0;
  virtual void free(std::byte*) noexcept = 0;
  virtual void zero(std::byte* to, int64_t bytes) = 0;
  virtual void copy(std::byte* to, const std::byte* from, int64_t bytes) = 0;      // both on the device
  virtual void upload(std::byte* to, const std::byte* from, int64_t bytes) = 0;    // from the host
  virtual void download(std::byte* to, const std::byte* from, int64_t bytes) = 0;  // to the host
};
/// @throws UserError for a device that this build or this machine does not have
DeviceMemory& memory_of(Device);

/// A device that a recipe can name.
struct DeviceKind {
  Device::Kind kind;
  std::string_view name, help;  // of run.device; help may be empty
  DeviceMemory& (*memory)();
};
/// The first is the best.
const std::vector<DeviceKind>& device_kinds();

DeviceMemory& cpu_memory();
/// A device for tests: kernels of the CPU on memory that the host cannot read. Addresses lie where nothing is mapped;
/// the pages lie far_shift() further on, where only the kernels of this device look.
DeviceMemory& far_memory();
int64_t far_shift();

/// Bytes that crossed between the host and other devices since the program started.
struct Transfers {
  int64_t uploads = 0, uploaded_bytes = 0, downloads = 0, downloaded_bytes = 0;
};
Transfers transfers();

/// Every element <- 0. Rows may be strided.
void zero(const TensorView&);
/// to <- from, elements as they are: same shape and dtype, rows may be strided.
/// Between the host and a device, or on one.
void copy(const ConstView& from, const TensorView& to);
/// A contiguous copy of the host's.
Tensor download(const ConstView&);
/// A contiguous copy on the device.
Tensor upload(const ConstView&, Device);

/// A view's elements where the host can read them: in place on the CPU, else a copy.
class OnHost {
 public:
  explicit OnHost(const ConstView&);
  OnHost(const OnHost&) = delete;
  const ConstView& view() const { return view_; }
  template <class T> std::span<const T> as() const { return view_.as<T>(); }

 private:
  Tensor copy_;
  ConstView view_;
};

/// Room for the host to write all of a view's elements: in place on the CPU, else a buffer of zeros that goes up when
/// this ends. What lay there is not brought down.
class WrittenOnHost {
 public:
  explicit WrittenOnHost(const TensorView&);
  ~WrittenOnHost();
  WrittenOnHost(const WrittenOnHost&) = delete;
  TensorView view() const { return host_; }
  template <class T> std::span<T> as() const { return host_.as<T>(); }

 private:
  TensorView device_, host_;
  Tensor buffer_;
};

/// A view's elements for the host to change: in place on the CPU, else a copy that goes back when this ends.
class EditedOnHost : public WrittenOnHost {
 public:
  explicit EditedOnHost(const TensorView&);
};

}  // namespace tessera
