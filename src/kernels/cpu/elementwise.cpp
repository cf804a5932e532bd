// fill, add, scale, scale_rows, convert, sums of products, and the copies of embedding and shards: all bound by memory.

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

void add_row(const float* x, int64_t n, float* y) {
  for_vectors(n, [&](int64_t i, auto vector)
                     HWY_ATTR { vector.store(hn::Add(vector.load(y + i), vector.load(x + i)), y + i); });
}

/// y += factor · x, rounded once.
void add_scaled_row(float factor, const float* x, int64_t n, float* y) {
  const auto f = hn::Set(kFloats, factor);
  for_vectors(n, [&](int64_t i, auto vector)
                     HWY_ATTR { vector.store(fused(f, vector.load(x + i), vector.load(y + i)), y + i); });
}

void scaled_row(float factor, const float* x, int64_t n, float* y) {
  const auto f = hn::Set(kFloats, factor);
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR { vector.store(hn::Mul(vector.load(x + i), f), y + i); });
}

void scale_row(float factor, int64_t n, float* x) {
  const auto f = hn::Set(kFloats, factor);
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR { vector.store(hn::Mul(vector.load(x + i), f), x + i); });
}

template <class W> void widen(const void* x, int64_t n, float* y) {
  for_vectors(n,
              [&](int64_t i, auto vector) HWY_ATTR { vector.store(vector.load(static_cast<const W*>(x) + i), y + i); });
}

void widen_row(const void* x, DType dtype, int64_t n, float* y) {
  if (dtype == DType::bf16) return widen<BFloat16>(x, n, y);
  if (dtype == DType::f16) return widen<Float16>(x, n, y);
  std::memcpy(y, x, n * sizeof(float));
}

/// Rounds to nearest even on the bits; a NaN keeps its upper fraction and becomes quiet.
void narrow_bf16(const float* x, int64_t n, BFloat16* y) {
  const hn::RebindToUnsigned<Floats> d32;
  const hn::Rebind<uint16_t, Floats> d16;
  const auto lanes = static_cast<int64_t>(hn::Lanes(kFloats));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto value = hn::LoadU(kFloats, x + i);
    const auto bits = hn::BitCast(d32, value);
    const auto upper = hn::ShiftRight<16>(bits);
    const auto odd = hn::And(upper, hn::Set(d32, 1u));
    // Adding 0x7fff carries into the upper half exactly when the lower half is above one half; the upper half's last
    // bit is added too, so that a tie goes to the even neighbour. A NaN is kept apart: the carry could make it an
    // infinity.
    const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::Set(d32, 0x7fffu), odd)));
    const auto is_nan = hn::RebindMask(d32, hn::IsNaN(value));
    const auto result = hn::IfThenElse(is_nan, hn::Or(upper, hn::Set(d32, 0x40u)), rounded);
    hn::StoreU(hn::DemoteTo(d16, hn::BitCast(hn::RebindToSigned<Floats>(), result)), d16,
               reinterpret_cast<uint16_t*>(y + i));
  }
  for (; i < n; ++i) y[i] = to_bfloat16(x[i]);
}

/// In f64: the squares of gradients span more than f32 holds, and a norm decides whether a step is taken.
double squares_of_block(const float* x, int64_t n) {
  DoubleSums squares;
  for_double_lanes(n, [&](int64_t i, auto vector, auto place) HWY_ATTR {
    const auto v = wide(vector.load(x + i));
    squares.add_product(place, v, v);
  });
  return squares.sum();
}

/// Σ x · (a − b); b may be null.
double dot_of_block(const float* x, const float* a, const float* b, int64_t n) {
  DoubleSums dot;
  for_double_lanes(n, [&](int64_t i, auto vector, auto place) HWY_ATTR {
    // Subtracted in f32 as in the reference; products and sums are f64.
    auto difference = vector.load(a + i);
    if (b) difference = hn::Sub(difference, vector.load(b + i));
    dot.add_product(place, wide(vector.load(x + i)), wide(difference));
  });
  return dot.sum();
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/ordered_sum.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scratch.h"
#include "kernels/reference/reference_kernels.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(add_row);
HWY_EXPORT(scale_row);
HWY_EXPORT(scaled_row);
HWY_EXPORT(add_scaled_row);
HWY_EXPORT(widen_row);
HWY_EXPORT(narrow_bf16);
HWY_EXPORT(squares_of_block);
HWY_EXPORT(dot_of_block);

constexpr int64_t kSumBlock = 16 * 1024;  // elements that share one partial sum

/// Σ of f(begin, count) over fixed blocks of elements, in block order.
template <class F> double sum_of_blocks(const Context& ctx, int64_t count, F&& f) {
  // Blocks of a fixed size, not a block a thread: partial sums and their order are the same for any number of threads.
  return ordered_sum(ctx, 0, (count + kSumBlock - 1) / kSumBlock, kSumBlock,
                     [&](int64_t b) { return f(b * kSumBlock, std::min(kSumBlock, count - b * kSumBlock)); });
}

/// f32 to f16 by the compiler's conversion: exact, not vectorised everywhere, used when a model is exported.
void narrow_f16(const float* x, int64_t n, Float16* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = to_float16(x[i]);
}

}  // namespace

/// Writing is bound by memory: what the compiler makes of the plain loop, shared out over the threads, is enough.
void fill(const Context& ctx, double value, TensorView y) {
  if (y.rows() == 1) {  // one long row is cut anywhere
    parallel_for(ctx, y.cols(), 1,
                 [&](int64_t begin, int64_t end) { reference::fill(ctx, value, y.slice_cols(begin, end)); });
    return;
  }
  parallel_for(ctx, y.rows(), y.cols(),
               [&](int64_t begin, int64_t end) { reference::fill(ctx, value, y.slice_rows(begin, end)); });
}

void add(const Context& ctx, ConstView x, TensorView y) {
  if (x.rows() == 1) {  // one long row is cut anywhere; rows of a matrix may be strided and are kept whole
    parallel_for(ctx, x.cols(), 1, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(add_row)(x.row<float>(0) + begin, end - begin, y.row<float>(0) + begin);
    });
    return;
  }
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) HWY_DYNAMIC_DISPATCH(add_row)(x.row<float>(r), x.cols(), y.row<float>(r));
  });
}

void scale_rows(const Context& ctx, ConstView factors, TensorView x) {
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      HWY_DYNAMIC_DISPATCH(scale_row)(factors.row<float>(0)[r], x.cols(), x.row<float>(r));
  });
}

void scale(const Context& ctx, double factor, ConstView x, TensorView y, Write write) {
  const auto f = static_cast<float>(factor);
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (write == Write::assign)
        HWY_DYNAMIC_DISPATCH(scaled_row)(f, x.row<float>(r), x.cols(), y.row<float>(r));
      else
        HWY_DYNAMIC_DISPATCH(add_scaled_row)(f, x.row<float>(r), x.cols(), y.row<float>(r));
    }
  });
}

void convert(const Context& ctx, ConstView from, TensorView to) {
  const bool widens = to.dtype == DType::f32 && from.dtype != DType::f64;
  if (from.dtype != DType::f32 && !widens)
    return reference::convert(ctx, from, to);  // f64 and between narrow types: rare
  if (to.dtype == DType::f64) return reference::convert(ctx, from, to);
  const auto* in = static_cast<const std::byte*>(from.data);
  auto* out = static_cast<std::byte*>(to.mutable_data());
  parallel_for(ctx, from.shape.count(), 1, [&](int64_t begin, int64_t end) {
    const std::byte* x = in + begin * size_of(from.dtype);
    std::byte* y = out + begin * size_of(to.dtype);
    if (to.dtype == DType::f32)
      HWY_DYNAMIC_DISPATCH(widen_row)(x, from.dtype, end - begin, reinterpret_cast<float*>(y));
    else if (to.dtype == DType::bf16)
      HWY_DYNAMIC_DISPATCH(narrow_bf16)(reinterpret_cast<const float*>(x), end - begin, reinterpret_cast<BFloat16*>(y));
    else
      narrow_f16(reinterpret_cast<const float*>(x), end - begin, reinterpret_cast<Float16*>(y));
  });
}

int64_t sum_scratch_bytes(int64_t count) { return ordered_sum_bytes((count + kSumBlock - 1) / kSumBlock); }

void sum_of_squares(const Context& ctx, ConstView x, TensorView to) {
  const auto* values = static_cast<const float*>(x.data);
  to.as<double>()[0] = sum_of_blocks(ctx, x.shape.count(), [&](int64_t begin, int64_t count) {
    return HWY_DYNAMIC_DISPATCH(squares_of_block)(values + begin, count);
  });
}

void add_dot(const Context& ctx, ConstView x, ConstView a, ConstView b, TensorView to) {
  const auto *values = static_cast<const float*>(x.data), *plus = static_cast<const float*>(a.data),
             *minus = static_cast<const float*>(b.data);
  const double sum = sum_of_blocks(ctx, x.shape.count(), [&](int64_t begin, int64_t count) {
    return HWY_DYNAMIC_DISPATCH(dot_of_block)(values + begin, plus + begin, minus ? minus + begin : nullptr, count);
  });
  // One rounding from f64, after everything was summed.
  to.as<float>()[0] = static_cast<float>(to.as<float>()[0] + sum);
}

void embedding(const Context& ctx, ConstView table, IndexArray<int32_t> ids, TensorView y) {
  if (table.dtype == DType::f64) return reference::embedding(ctx, table, ids, y);
  // Rows of the table may be strided, and stand in their storage type: their distance is taken in bytes.
  const int64_t row_bytes = table.row_stride() * size_of(table.dtype);
  parallel_for(ctx, y.rows(), y.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) HWY_DYNAMIC_DISPATCH(widen_row)
    (static_cast<const std::byte*>(table.data) + ids[t] * row_bytes, table.dtype, y.cols(), y.row<float>(t));
  });
}

/// Each thread owns the rows of dtable with its number modulo the threads, and meets their tokens in ascending order. A
/// token may occur many times in a batch: so no two threads write one row, and its sum has one order.
void embedding_backward(const Context& ctx, IndexArray<int32_t> ids, ConstView dy, TensorView dtable) {
  // All owners go through all tokens, and each adds only its own: reading ids is cheap beside adding rows.
  const int64_t owners = ctx.threads;
  parallel_for(ctx, owners, dy.shape.count() / owners, [&](int64_t first, int64_t last) {
    for (int64_t t = 0; t < dy.rows(); ++t) {
      const int64_t owner = ids[t] % owners;
      if (first <= owner && owner < last)
        HWY_DYNAMIC_DISPATCH(add_row)(dy.row<float>(t), dy.cols(), dtable.row<float>(ids[t]));
    }
  });
}

void gather_shards(const Context& ctx, ConstView pool, IndexArray<int32_t> index, TensorView y) {
  const int64_t shard = pool.cols(), shards = y.cols() / shard;
  parallel_for(ctx, y.rows(), y.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j)
      for (int64_t i = 0; i < shards; ++i)
        std::memcpy(y.row<float>(j) + i * shard, pool.row<float>(index[j * shards + i]), shard * sizeof(float));
  });
}

/// The indices of a table are distinct: rows of y may be shared out, and no two threads meet in a row of the pool.
void scatter_shards_add(const Context& ctx, IndexArray<int32_t> index, ConstView dy, TensorView dpool) {
  const int64_t shard = dpool.cols(), shards = dy.cols() / shard;
  parallel_for(ctx, dy.rows(), dy.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j)
      for (int64_t i = 0; i < shards; ++i)
        HWY_DYNAMIC_DISPATCH(add_row)(dy.row<float>(j) + i * shard, shard, dpool.row<float>(index[j * shards + i]));
  });
}

}  // namespace tessera::cpu
#endif
