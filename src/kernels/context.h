#pragma once
// kernels/: arithmetic on one device. Every op takes the Context first: where to run, with what, in which scratch.

#include <string_view>

#include "core/arena.h"
#include "core/tensor.h"

namespace tessera {

struct Kernels;

/// An ordered queue of work on a device; the CPU has one implicit queue (handle is null).
struct Stream {
  void* handle = nullptr;
};

struct Context {
  Device device;
  Stream stream;
  const Kernels& kernels;
  Arena& scratch;
  int threads = 1;
};

/// Whether a result replaces what lies there or is added to it.
enum class Write : uint8_t { assign, accumulate };

/// Calls v(part) for each part: how structs of arguments list what lies on a device.
template <class Visitor, class... Parts> void for_each_of(Visitor&& v, Parts&... parts) { (v(parts), ...); }

/// The table of a backend: "reference" (plain loops, f64 sums, f32 and f64 data), "cpu" (SIMD, OpenMP; f32 data),
/// "counting" (does nothing: for planning memory with a counting arena). Empty: the device's own.
/// @throws UserError for an unknown name, and for CUDA, which is not there yet
const Kernels& kernels_for(Device, std::string_view backend = {});

}  // namespace tessera
