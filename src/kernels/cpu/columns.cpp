// Bound by memory. Sums over rows are shared out by columns: each is one chain over the rows that goes on from what is
// there.

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/columns.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

template <class W> void multiply_row(const float* x, const W* factors, int64_t dim, float* y, bool accumulate) {
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto value = vector.load(x + i), factor = vector.load(factors + i);
    // Fused: accumulated, an element is rounded once, not after the product and again after the sum.
    vector.store(accumulate ? fused(value, factor, vector.load(y + i)) : hn::Mul(value, factor), y + i);
  });
}

/// The factors' storage type is looked up once a row and not in the loop. So it is in the other functions that end in a
/// choice of types.
void multiply_row_by(const float* x, ConstView factors, int64_t dim, float* y, bool accumulate) {
  if (factors.dtype == DType::bf16) return multiply_row(x, factors.row<BFloat16>(0), dim, y, accumulate);
  if (factors.dtype == DType::f16) return multiply_row(x, factors.row<Float16>(0), dim, y, accumulate);
  multiply_row(x, factors.row<float>(0), dim, y, accumulate);
}

template <class W> void add_to_row(const W* bias, int64_t dim, float* y) {
  for_vectors(dim, [&](int64_t i, auto vector)
                       HWY_ATTR { vector.store(hn::Add(vector.load(y + i), vector.load(bias + i)), y + i); });
}

void add_bias_to_row(ConstView bias, int64_t dim, float* y) {
  if (bias.dtype == DType::bf16) return add_to_row(bias.row<BFloat16>(0), dim, y);
  if (bias.dtype == DType::f16) return add_to_row(bias.row<Float16>(0), dim, y);
  add_to_row(bias.row<float>(0), dim, y);
}

void add_to_sums(const float* x, int64_t count, float* sums) {
  for_vectors(count, [&](int64_t i, auto vector)
                         HWY_ATTR { vector.store(hn::Add(vector.load(sums + i), vector.load(x + i)), sums + i); });
}

void add_products_to_sums(const float* x, const float* y, int64_t count, float* sums) {
  for_vectors(count, [&](int64_t i, auto vector) HWY_ATTR {
    vector.store(fused(vector.load(x + i), vector.load(y + i), vector.load(sums + i)), sums + i);
  });
}

/// sums += x · y for columns [begin, end), row after row; y may be empty.
void add_columns(ConstView x, ConstView y, float* sums, int64_t begin, int64_t end) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    const float* row = x.row<float>(r) + begin;
    if (y.empty())
      add_to_sums(row, end - begin, sums + begin);
    else
      add_products_to_sums(row, y.row<float>(r) + begin, end - begin, sums + begin);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(multiply_row_by);
HWY_EXPORT(add_bias_to_row);
HWY_EXPORT(add_columns);

}  // namespace

void scale_columns(const Context& ctx, ConstView x, ConstView factors, TensorView y, Write write) {
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) HWY_DYNAMIC_DISPATCH(multiply_row_by)
    (x.row<float>(r), factors, x.cols(), y.row<float>(r), write == Write::accumulate);
  });
}

void add_bias(const Context& ctx, ConstView bias, TensorView y) {
  parallel_for(ctx, y.rows(), y.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) HWY_DYNAMIC_DISPATCH(add_bias_to_row)(bias, y.cols(), y.row<float>(r));
  });
}

void add_column_sums(const Context& ctx, ConstView x, ConstView y, TensorView sums) {
  for_columns(ctx, x.cols(), x.rows(), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(add_columns)(x, y, sums.row<float>(0), begin, end);
  });
}

}  // namespace tessera::cpu
#endif
