// One sum an element, in f64 and in the order of k: what every other product is compared with, within the error that
// sums in f32 may have.

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

template <class T, class W> void multiply(const GemmArgs& args) {
  const bool a_transposed = args.a_transpose == Transpose::yes, b_transposed = args.b_transpose == Transpose::yes;
  const int64_t inner = args.a.shape[a_transposed ? 0 : 1];
  for (int64_t m = 0; m < args.c.shape[0]; ++m) {
    for (int64_t n = 0; n < args.c.shape[1]; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < inner; ++k) {
        const double a = a_transposed ? args.a.row<T>(k)[m] : args.a.row<T>(m)[k];
        const double b = widen(b_transposed ? args.b.row<W>(n)[k] : args.b.row<W>(k)[n]);
        sum += a * b;
      }
      T& c = args.c.row<T>(m)[n];
      // beta = 0 must not look at c, which may be uninitialised or NaN.
      c = static_cast<T>(args.beta == 0 ? args.alpha * sum : args.alpha * sum + args.beta * c);
    }
  }
}

}  // namespace

void gemm(const Context&, const GemmArgs& args) {
  with_compute_type(args.a.dtype, [&](auto t) {
    with_storage_type(args.b.dtype, [&](auto w) { multiply<decltype(t), decltype(w)>(args); });
  });
}

}  // namespace tessera::reference
