#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {

void rope(const Context&, TensorView x, int64_t head_dim, IndexArray<int32_t> positions, ConstView cos, ConstView sin,
          RopeDirection direction) {
  const int64_t half = head_dim / 2;
  const double sign = direction == RopeDirection::forward ? 1 : -1;
  with_compute_type(x.dtype, [&](auto t) {
    using T = decltype(t);
    for (int64_t r = 0; r < x.rows(); ++r) {
      const T *c = cos.row<T>(positions[r]), *s = sin.row<T>(positions[r]);
      for (T* head = x.row<T>(r); head < x.row<T>(r) + x.cols(); head += head_dim) {
        for (int64_t i = 0; i < half; ++i) {
          // Element i turns with element i + half, as Hugging Face lays heads out; other layouts pair neighbours.
          // Both are read before either is written: the turn is in place.
          const double a = head[i], b = head[i + half];
          head[i] = static_cast<T>(a * c[i] - b * sign * s[i]);
          head[i + half] = static_cast<T>(b * c[i] + a * sign * s[i]);
        }
      }
    }
  });
}

}  // namespace tessera::reference
