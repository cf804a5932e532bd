//   y = x · inv · weight,   inv = 1 / sqrt(mean(x²) + eps)
//   dx += inv · (g − n · mean(g · n)),   dweight += Σ_rows dy · n,   with n = x · inv, g = dy · weight
// The second term of dx is there because inv depends on x: without it the gradient would change the length of x, to
// which y is blind but for eps.

#include <cmath>

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

template <class T, class W> void forward(ConstView x, ConstView weight, double eps, TensorView y, TensorView inv_rms) {
  const int64_t dim = x.cols();
  const W* w = weight.row<W>(0);
  for (int64_t r = 0; r < x.rows(); ++r) {
    const T* in = x.row<T>(r);
    T* out = y.row<T>(r);
    double squares = 0;
    for (int64_t c = 0; c < dim; ++c) squares += static_cast<double>(in[c]) * in[c];
    const double inv = 1 / std::sqrt(squares / static_cast<double>(dim) + eps);
    for (int64_t c = 0; c < dim; ++c) out[c] = static_cast<T>(in[c] * inv * widen(w[c]));
    if (!inv_rms.empty()) inv_rms.as<T>()[r] = static_cast<T>(inv);
  }
}

template <class T, class W>
void backward(ConstView x, ConstView weight, ConstView inv_rms, ConstView dy, TensorView dx, TensorView dweight) {
  const int64_t dim = x.cols();
  const W* w = weight.row<W>(0);
  for (int64_t r = 0; r < x.rows(); ++r) {
    const double inv = inv_rms.as<T>()[r];
    const T *in = x.row<T>(r), *dout = dy.row<T>(r);
    T* din = dx.row<T>(r);
    double mean = 0;  // of g · n
    // The mean is what a change of x does to the root mean square, which scales all elements of the row.
    for (int64_t c = 0; c < dim; ++c) mean += dout[c] * widen(w[c]) * in[c] * inv;
    mean /= static_cast<double>(dim);
    for (int64_t c = 0; c < dim; ++c) {
      const double g = dout[c] * widen(w[c]), n = in[c] * inv;
      din[c] = static_cast<T>(din[c] + inv * (g - n * mean));
    }
  }
  if (dweight.empty()) return;
  // A weight scales its column in every row: its gradient is a sum over rows.
  for (int64_t c = 0; c < dim; ++c) {
    double sum = 0;
    for (int64_t r = 0; r < x.rows(); ++r)
      sum += static_cast<double>(dy.row<T>(r)[c]) * x.row<T>(r)[c] * inv_rms.as<T>()[r];
    dweight.as<T>()[c] = static_cast<T>(dweight.as<T>()[c] + sum);
  }
}

}  // namespace

void rms_norm(const Context&, ConstView x, ConstView weight, double eps, TensorView y, TensorView inv_rms) {
  with_compute_type(x.dtype, [&](auto t) {
    with_storage_type(weight.dtype, [&](auto w) { forward<decltype(t), decltype(w)>(x, weight, eps, y, inv_rms); });
  });
}

void rms_norm_backward(const Context&, ConstView x, ConstView weight, ConstView inv_rms, ConstView dy, TensorView dx,
                       TensorView dweight) {
  with_compute_type(x.dtype, [&](auto t) {
    with_storage_type(weight.dtype,
                      [&](auto w) { backward<decltype(t), decltype(w)>(x, weight, inv_rms, dy, dx, dweight); });
  });
}

}  // namespace tessera::reference
