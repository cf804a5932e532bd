#pragma once
// Where a job computes: one object owns device, backend, scratch and threads, made once and handed down as a Context.

#include <string>
#include <vector>

#include "kernels/context.h"

namespace tessera {

class Compute {
 public:
  struct Choice {
    Device device{};
    std::string_view backend{};  // empty: the device's own
    int threads = 1;
  };
  /// @throws UserError for a device or backend that this build does not have; OutOfMemory for the scratch
  Compute(const Choice&, int64_t scratch_bytes);
  /// For plans: arithmetic is left out, and scratch is counted.
  static Compute counting(Device, int threads);
  /// The same device, backend and threads with scratch of its own.
  static Compute beside(const Context&, int64_t scratch_bytes);
  Compute(const Compute&) = delete;

  const Context& context() const { return context_; }
  operator const Context&() const { return context_; }
  /// Of scratch, so far.
  int64_t peak_bytes() const { return scratch_.peak_bytes(); }

 private:
  Compute(Arena scratch, const Kernels&, int threads);
  Arena scratch_;
  Context context_;
};

/// The device of a recipe: "auto" (the best that is there: today the CPU), or one of device_kinds
/// (core/device/memory.h).
Device device_of(std::string_view name);
/// What a recipe may say, "auto" among it, and what that means.
std::vector<std::string> device_choices();
std::string device_help();

}  // namespace tessera
