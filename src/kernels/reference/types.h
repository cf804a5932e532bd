#pragma once
// From a dtype known at run time to a C++ type, and between storage and f64.

#include <utility>

#include "core/error.h"
#include "core/tensor.h"

namespace tessera::reference {

inline double widen(double value) { return value; }
inline double widen(float value) { return value; }
inline double widen(BFloat16 value) { return to_float(value); }
inline double widen(Float16 value) { return to_float(value); }

/// Calls f(T{}) with the type of a compute dtype, float or double.
template <class F> void with_compute_type(DType dtype, F&& f) {
  if (dtype == DType::f64) return f(double{});
  TS_CHECK(dtype == DType::f32, "cannot compute in {}", name_of(dtype));
  f(float{});
}

/// Calls f(W{}) with the type of a floating storage dtype.
template <class F> void with_storage_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f(double{});
    case DType::f32:
      return f(float{});
    case DType::bf16:
      return f(BFloat16{});
    case DType::f16:
      return f(Float16{});
    default:
      TS_CHECK(false, "{} is not a floating type", name_of(dtype));
  }
}

}  // namespace tessera::reference
