#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {

void scale_columns(const Context&, ConstView x, ConstView factors, TensorView y, Write write) {
  with_compute_type(x.dtype, [&](auto t) {
    with_storage_type(factors.dtype, [&](auto f) {
      using T = decltype(t);
      const auto* factor = factors.row<decltype(f)>(0);
      for (int64_t r = 0; r < x.rows(); ++r)
        for (int64_t c = 0; c < x.cols(); ++c) {
          const double before = write == Write::accumulate ? y.row<T>(r)[c] : 0;
          y.row<T>(r)[c] = static_cast<T>(before + x.row<T>(r)[c] * widen(factor[c]));
        }
    });
  });
}

void add_bias(const Context&, ConstView bias, TensorView y) {
  with_compute_type(y.dtype, [&](auto t) {
    with_storage_type(bias.dtype, [&](auto b) {
      using T = decltype(t);
      for (int64_t r = 0; r < y.rows(); ++r)
        for (int64_t c = 0; c < y.cols(); ++c)
          y.row<T>(r)[c] = static_cast<T>(y.row<T>(r)[c] + widen(bias.row<decltype(b)>(0)[c]));
    });
  });
}

void add_column_sums(const Context&, ConstView x, ConstView y, TensorView sums) {
  with_compute_type(x.dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t c = 0; c < x.cols(); ++c) {
      // The sum over rows is rounded once, when it is added to what was there.
      double sum = 0;
      for (int64_t r = 0; r < x.rows(); ++r)
        sum += static_cast<double>(x.row<T>(r)[c]) * (y.empty() ? 1.0 : static_cast<double>(y.row<T>(r)[c]));
      sums.as<T>()[c] = static_cast<T>(sums.as<T>()[c] + sum);
    }
  });
}

}  // namespace tessera::reference
