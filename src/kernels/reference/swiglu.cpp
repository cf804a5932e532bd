//   y = silu(gate) · up,   silu(g) = g σ(g),   σ(g) = 1 / (1 + e^−g)

#include <cmath>

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

/// Of a large −x the exponential is infinite and the quotient 0: no branch is needed.
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

void swiglu(const Context&, ConstView gate, ConstView up, TensorView y) {
  with_compute_type(gate.dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t r = 0; r < gate.rows(); ++r)
      for (int64_t c = 0; c < gate.cols(); ++c) {
        const double g = gate.row<T>(r)[c];
        y.row<T>(r)[c] = static_cast<T>(g * sigmoid(g) * up.row<T>(r)[c]);
      }
  });
}

void swiglu_backward(const Context&, ConstView gate, ConstView up, ConstView dy, TensorView dgate, TensorView dup) {
  with_compute_type(gate.dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t r = 0; r < gate.rows(); ++r)
      for (int64_t c = 0; c < gate.cols(); ++c) {
        // silu(g) = g σ(g), whose derivative is σ(g) (1 + g (1 − σ(g))).
        const double g = gate.row<T>(r)[c], u = up.row<T>(r)[c], d = dy.row<T>(r)[c], s = sigmoid(g);
        dgate.row<T>(r)[c] = static_cast<T>(d * u * s * (1 + g * (1 - s)));
        dup.row<T>(r)[c] = static_cast<T>(d * g * s);
      }
  });
}

}  // namespace tessera::reference
