// An element at a time.

#include <algorithm>
#include <cmath>

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

/// The numbers of one head. Returns whether the pages can hold them.
template <class T> bool write(const T* x, int64_t dim, double* to, float*) {
  for (int64_t d = 0; d < dim; ++d) to[d] = x[d];
  return true;
}
template <class T> bool write(const T* x, int64_t dim, float* to, float*) {
  for (int64_t d = 0; d < dim; ++d) to[d] = static_cast<float>(x[d]);
  return true;
}
template <class T> bool write(const T* x, int64_t dim, BFloat16* to, float*) {
  for (int64_t d = 0; d < dim; ++d) to[d] = to_bfloat16(static_cast<float>(x[d]));
  return true;
}
template <class T> bool write(const T* x, int64_t dim, Float16* to, float*) {
  bool fits = true;
  for (int64_t d = 0; d < dim; ++d) {
    to[d] = to_float16(static_cast<float>(x[d]));
    if (std::isinf(to_float(to[d]))) fits = false;
  }
  return fits;
}
template <class T> bool write(const T* x, int64_t dim, int8_t* to, float* scale) {
  float largest = 0;
  bool fits = true;
  for (int64_t d = 0; d < dim; ++d) {
    if (!std::isfinite(static_cast<float>(x[d]))) fits = false;
    largest = std::max(largest, std::abs(static_cast<float>(x[d])));
  }
  *scale = fits ? largest / 127 : 0;
  for (int64_t d = 0; d < dim; ++d) {
    const float code = *scale == 0 ? 0 : std::nearbyint(static_cast<float>(x[d]) / *scale);
    to[d] = static_cast<int8_t>(std::clamp(code, -127.0f, 127.0f));
  }
  return fits;
}

template <class T>
bool write_head(const ConstView& x, int64_t row, int64_t h, int64_t dim, const TensorView& to, const TensorView& scales,
                int64_t page, int64_t entry) {
  const T* from = x.row<T>(row) + h * dim;
  if (to.dtype == DType::i8)
    return write(from, dim, to.row<int8_t>(page) + entry * dim, scales.row<float>(page) + entry);
  bool fits = true;
  with_storage_type(to.dtype, [&](auto t) {
    fits = write(from, dim, to.row<decltype(t)>(page) + entry * dim, static_cast<float*>(nullptr));
  });
  return fits;
}

template <class T> void write_row(const WritePagesArgs& args, int64_t row) {
  const auto r = static_cast<size_t>(row);
  int32_t& fault = args.fault.as<int32_t>()[r];
  fault = 0;
  if (args.page[r] < 0) return;
  for (int64_t h = args.kv_heads - 1; h >= 0; --h) {
    const int64_t page = args.page[r] + args.page_base + h, entry = args.entry[r];
    const bool k = write_head<T>(args.k, row, h, args.head_dim, args.pages.k, args.pages.k_scale, page, entry);
    const bool v = write_head<T>(args.v, row, h, args.head_dim, args.pages.v, args.pages.v_scale, page, entry);
    if (!k || !v) fault = static_cast<int32_t>(h + 1);
    if (!args.pages.position.empty()) args.pages.position.row<int32_t>(page)[entry] = args.position[r];
  }
}

}  // namespace

void write_pages(const Context&, const WritePagesArgs& args) {
  with_compute_type(args.k.dtype, [&](auto t) {
    for (int64_t row = 0; row < args.k.shape[0]; ++row) write_row<decltype(t)>(args, row);
  });
}

}  // namespace tessera::reference
