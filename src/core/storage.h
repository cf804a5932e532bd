#pragma once
// Memory of a model's size, or in a plan only its count.

#include <vector>

#include "core/tensor.h"

namespace tessera {

/// held: there is memory. counted: there is none; addresses are made up,
/// and nothing may be read or written through them.
enum class Memory { held, counted };

/// Tensors that live as long as this does. In counting mode only `bytes()` counts: that is how what a job will hold is
/// known before it holds it.
class Storage {
 public:
  explicit Storage(Memory memory = Memory::held, Device device = {}) : memory_(memory), device_(device) {}
  /// Zero-initialised, 64-byte aligned; it stays where it is when the storage is moved.
  TensorView allocate(Shape, DType);
  Memory memory() const { return memory_; }
  Device device() const { return device_; }
  int64_t bytes() const { return bytes_; }  // of all tensors

 private:
  Memory memory_;
  Device device_;
  std::vector<Tensor> tensors_;
  int64_t bytes_ = 0;
};

}  // namespace tessera
