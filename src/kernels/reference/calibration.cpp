// Statistics of activations that choose which layers to drop or fold: the cosine of two states of a row, and the mean
// square of each column's inputs, as sums that callers divide.

#include <cmath>

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

template <class T> double cosine(const T* x, const T* y, int64_t dim) {
  double xy = 0, xx = 0, yy = 0;
  for (int64_t c = 0; c < dim; ++c) {
    const double a = x[c], b = y[c];
    xy += a * b;
    xx += a * a;
    yy += b * b;
  }
  return xx == 0 || yy == 0 ? 0 : xy / (std::sqrt(xx) * std::sqrt(yy));
}

}  // namespace

void add_cosines(const Context&, ConstView x, ConstView y, IndexArray<int32_t> rows, TensorView sum) {
  with_compute_type(x.dtype, [&](auto t) {
    using T = decltype(t);
    double& total = sum.as<double>()[0];
    for (const int32_t r : rows) total += cosine(x.row<T>(r), y.row<T>(r), x.cols());
  });
}

void add_column_squares(const Context&, ConstView x, IndexArray<int32_t> rows, TensorView sums) {
  with_compute_type(x.dtype, [&](auto t) {
    const auto to = sums.as<double>();
    for (const int32_t r : rows)
      for (int64_t c = 0; c < x.cols(); ++c) {
        const double value = x.row<decltype(t)>(r)[c];
        to[c] += value * value;
      }
  });
}

}  // namespace tessera::reference
