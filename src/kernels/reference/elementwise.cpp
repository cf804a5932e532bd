// Sums run in f64, in the order of the elements. What is narrowed passes through f64 and is rounded as if once: f64 to
// bf16 by way of f32 would round twice, and a value just above a tie could come out on the wrong side of it.

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

/// f64 to f32 rounded to odd: a later rounding to fewer bits is then as if done once.
float round_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (nearest == value || !std::isfinite(value) || (std::bit_cast<uint32_t>(nearest) & 1u)) return nearest;
  // The neighbour whose last bit is 1: towards zero where rounding went away from it, away from zero otherwise.
  const bool away = std::abs(static_cast<double>(nearest)) > std::abs(value);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(nearest) + (away ? -1u : 1u));
}

void store(double& to, double value) { to = value; }
void store(float& to, double value) { to = static_cast<float>(value); }
void store(BFloat16& to, double value) { to = to_bfloat16(round_to_odd(value)); }
void store(Float16& to, double value) { to = to_float16(round_to_odd(value)); }

template <class T> void fill_rows(T value, const TensorView& y) {
  for (int64_t r = 0; r < y.rows(); ++r) std::fill_n(y.row<T>(r), y.cols(), value);
}

}  // namespace

void fill(const Context&, double value, TensorView y) {
  switch (y.dtype) {
    case DType::i64:
      return fill_rows(static_cast<int64_t>(value), y);
    case DType::i32:
      return fill_rows(static_cast<int32_t>(value), y);
    default:
      with_compute_type(y.dtype, [&](auto t) { fill_rows(static_cast<decltype(t)>(value), y); });
  }
}

void scale_rows(const Context&, ConstView factors, TensorView x) {
  with_compute_type(x.dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t r = 0; r < x.rows(); ++r)
      for (int64_t c = 0; c < x.cols(); ++c) x.row<T>(r)[c] *= factors.as<T>()[r];
  });
}

void add(const Context&, ConstView x, TensorView y) {
  with_compute_type(x.dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t r = 0; r < x.rows(); ++r)
      for (int64_t c = 0; c < x.cols(); ++c) y.row<T>(r)[c] += x.row<T>(r)[c];
  });
}

void scale(const Context&, double factor, ConstView x, TensorView y, Write write) {
  with_compute_type(x.dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t r = 0; r < x.rows(); ++r)
      for (int64_t c = 0; c < x.cols(); ++c) {
        const double before = write == Write::accumulate ? y.row<T>(r)[c] : 0;
        y.row<T>(r)[c] = static_cast<T>(before + factor * x.row<T>(r)[c]);
      }
  });
}

void add_dot(const Context&, ConstView x, ConstView a, ConstView b, TensorView to) {
  with_compute_type(x.dtype, [&](auto t) {
    using T = decltype(t);
    double sum = 0;
    for (int64_t i = 0; i < x.shape.count(); ++i) {
      // In the compute type, as the fast kernels subtract: the difference is rounded before it is multiplied.
      const T difference = b.empty() ? a.row<T>(0)[i] : a.row<T>(0)[i] - b.row<T>(0)[i];
      sum += static_cast<double>(x.row<T>(0)[i]) * difference;
    }
    to.as<T>()[0] = static_cast<T>(to.as<T>()[0] + sum);
  });
}

void convert(const Context&, ConstView from, TensorView to) {
  with_storage_type(from.dtype, [&](auto f) {
    with_storage_type(to.dtype, [&](auto t) {
      const auto in = from.as<decltype(f)>();
      const auto out = to.as<decltype(t)>();
      for (size_t i = 0; i < in.size(); ++i) store(out[i], widen(in[i]));
    });
  });
}

void sum_of_squares(const Context&, ConstView x, TensorView to) {
  double sum = 0;
  with_compute_type(x.dtype, [&](auto t) {
    for (const auto value : x.as<decltype(t)>()) sum += static_cast<double>(value) * value;
  });
  to.as<double>()[0] = sum;
}

}  // namespace tessera::reference
