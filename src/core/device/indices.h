#pragma once
// Index arrays that stay on a device as long as their owner lives.

#include <utility>
#include <vector>

#include "core/device/memory.h"
#include "core/index_array.h"

namespace tessera {

/// Owns an array of the host's and, where the device is another, its copy there.
template <class T> class DeviceIndices {
 public:
  explicit DeviceIndices(std::vector<T> host, Device device = {}) : host_(std::move(host)), device_(device) {
    if (device_ == Device{} || host_.empty()) return;
    const auto bytes = static_cast<int64_t>(host_.size() * sizeof(T));
    copy_ = Tensor({bytes}, DType::u8, device_);
    copy(ConstView(host_.data(), {bytes}, DType::u8), copy_);
  }
  const std::vector<T>& host() const { return host_; }
  operator IndexArray<T>() const {
    if (device_ == Device{}) return host_;
    return {host_, static_cast<const T*>(copy_.view().data), device_};
  }

 private:
  std::vector<T> host_;
  Device device_;
  Tensor copy_;
};

}  // namespace tessera
