#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {

void embedding(const Context&, ConstView table, IndexArray<int32_t> ids, TensorView y) {
  with_compute_type(y.dtype, [&](auto t) {
    with_storage_type(table.dtype, [&](auto w) {
      using T = decltype(t);
      using W = decltype(w);
      for (size_t i = 0; i < ids.size(); ++i)
        for (int64_t c = 0; c < y.cols(); ++c) y.row<T>(i)[c] = static_cast<T>(widen(table.row<W>(ids[i])[c]));
    });
  });
}

void embedding_backward(const Context&, IndexArray<int32_t> ids, ConstView dy, TensorView dtable) {
  with_compute_type(dy.dtype, [&](auto t) {
    using T = decltype(t);
    for (size_t i = 0; i < ids.size(); ++i)
      // A token that occurs several times in a batch sums all its gradients in its one row.
      for (int64_t c = 0; c < dy.cols(); ++c) dtable.row<T>(ids[i])[c] += dy.row<T>(i)[c];
  });
}

}  // namespace tessera::reference
