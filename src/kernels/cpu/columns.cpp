// Bound by memory. Sums over rows take fixed blocks of rows; each block sums in a row of scratch, and the blocks are
// added in order.

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

/// sums += x · y; y may be null.
void add_products_row(const float* x, const float* y, int64_t dim, float* sums) {
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto value = vector.load(x + i), sum = vector.load(sums + i);
    vector.store(y ? fused(value, vector.load(y + i), sum) : hn::Add(value, sum), sums + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_blocks.h"
#include "kernels/cpu/scratch.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(multiply_row_by);
HWY_EXPORT(add_bias_to_row);
HWY_EXPORT(add_products_row);

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

int64_t add_column_sums_scratch_bytes(ConstView x) { return row_blocks_bytes(x); }

void add_column_sums(const Context& ctx, ConstView x, ConstView y, TensorView sums) {
  const int64_t dim = x.cols(), blocks = row_blocks(x.rows());
  const auto scope = ctx.scratch.scope();
  float* partial = ctx.scratch.allocate({blocks, dim}, DType::f32).row<float>(0);
  // Blocks have 64 rows whatever the number of threads, so that neither partial sums nor their order depend on it.
  parallel_for(ctx, blocks, kRowBlock * dim, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      float* own = partial + b * dim;
      std::fill_n(own, dim, 0.0f);
      for (int64_t r = b * kRowBlock; r < std::min((b + 1) * kRowBlock, x.rows()); ++r)
        HWY_DYNAMIC_DISPATCH(add_products_row)
      (x.row<float>(r), y.empty() ? nullptr : y.row<float>(r), dim, own);
    }
  });
  join_row_blocks(partial, blocks, dim, sums.row<float>(0));
}

}  // namespace tessera::cpu
#endif
