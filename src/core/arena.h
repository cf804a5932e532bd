#pragma once
// A bump allocator for activations and scratch: allocation is an addition, release is a scope's end.

#include <algorithm>

#include "core/tensor.h"

namespace tessera {

/// Hands out 64-byte aligned views of one block of a device's memory. In counting mode there is no block: addresses are
/// made up, nothing may be read or written through them, and only `peak_bytes()` counts.
/// That is how memory is planned before step 0.
class Arena {
 public:
  static Arena counting(Device device = {});
  explicit Arena(int64_t capacity_bytes, Device device = {});
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&&) = delete;
  ~Arena();

  /// Uninitialised memory. Throws UserError when the block is full (the plan was wrong, or the batch was larger).
  TensorView allocate(Shape, DType);
  bool is_counting() const { return memory_ == nullptr; }
  Device device() const { return device_; }
  int64_t used_bytes() const { return used_; }
  int64_t peak_bytes() const { return peak_; }
  int64_t capacity_bytes() const { return capacity_; }

  /// The free part of this arena as kernels of a device see it whose addresses lie `shift` further on. One mark for
  /// both: while it is in use, nothing is taken from this one.
  Arena shifted(int64_t shift, Device device) const;
  /// That arena's peak was this one's.
  void note_peak(const Arena& shifted) { peak_ = std::max(peak_, shifted.peak_); }

  /// Everything allocated during the life of the scope is released at its end.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    int64_t mark_;
  };
  [[nodiscard]] Scope scope() { return Scope(*this); }

 private:
  Arena() = default;
  std::byte* memory_ = nullptr;
  bool owns_ = false;
  Device device_;
  int64_t capacity_ = 0, used_ = 0, peak_ = 0;
};

}  // namespace tessera
