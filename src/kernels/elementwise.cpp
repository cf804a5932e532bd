#include "kernels/elementwise.h"

#include <cmath>
#include <limits>

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {
namespace {

/// Whether elements of the dtype hold the value. Whole numbers up to 2^53 pass through a double unchanged.
bool is_fillable(DType dtype, double value) {
  if (dtype == DType::f32 || dtype == DType::f64) return true;
  const bool is_whole = std::trunc(value) == value && std::abs(value) <= 0x1p53;
  if (dtype == DType::i64) return is_whole;
  using Limits = std::numeric_limits<int32_t>;
  return dtype == DType::i32 && is_whole && Limits::min() <= value && value <= Limits::max();
}

}  // namespace

void fill(const Context& ctx, double value, TensorView y) {
  TS_CHECK(is_fillable(y.dtype, value), "fill: {} in {}", value, name_of(y.dtype));
  TS_CHECK(!y.empty() && y.device == ctx.device, "fill: y is missing or lives on another device");
  if (y.is_contiguous()) return ctx.kernels.fill(ctx, value, y.reshape({1, y.shape.count()}));
  TS_CHECK(y.shape.rank == 2 && (y.cols() <= 1 || y.strides[1] == 1), "fill: y is {} and strided", y.shape.text());
  ctx.kernels.fill(ctx, value, y);
}

void add(const Context& ctx, ConstView x, TensorView y) {
  const Arguments check(ctx, "add", x.dtype);
  if (x.shape.rank == 2) {
    check.matrix("x", x, x.shape[0], x.shape[1]);
    check.matrix("y", y, x.shape[0], x.shape[1]);
    return ctx.kernels.add(ctx, x, y);
  }
  TS_CHECK(x.shape == y.shape, "add: y is {}, expected {}", y.shape.text(), x.shape.text());
  const int64_t count = x.shape.count();
  const ConstView flat_x = x.reshape({1, count});
  const TensorView flat_y = y.reshape({1, count});
  check.matrix("x", flat_x, 1, count);
  check.matrix("y", flat_y, 1, count);
  ctx.kernels.add(ctx, flat_x, flat_y);
}

void scale_rows(const Context& ctx, ConstView factors, TensorView x) {
  const Arguments check(ctx, "scale_rows", x.dtype);
  check.matrix("x", x, x.shape[0], x.shape[1]);
  check.vector("factors", factors, x.shape[0]);
  ctx.kernels.scale_rows(ctx, factors, x);
}

void convert(const Context& ctx, ConstView from, TensorView to) {
  TS_CHECK(is_floating(from.dtype) && is_floating(to.dtype), "convert: {} to {}, expected floating types",
           name_of(from.dtype), name_of(to.dtype));
  TS_CHECK(from.shape == to.shape, "convert: to is {}, expected {}", to.shape.text(), from.shape.text());
  TS_CHECK(from.is_contiguous() && to.is_contiguous(), "convert: strided views");
  TS_CHECK(from.device == ctx.device && to.device == ctx.device, "convert: operands live on another device");
  ctx.kernels.convert(ctx, from, to);
}

void sum_of_squares(const Context& ctx, ConstView x, TensorView sum) {
  const Arguments check(ctx, "sum_of_squares", x.dtype);
  TS_CHECK(x.is_contiguous(), "sum_of_squares: x is strided");
  check.vector("x", x.reshape({x.shape.count()}), x.shape.count());
  TS_CHECK(sum.shape == Shape{1} && sum.dtype == DType::f64 && sum.device == ctx.device,
           "sum_of_squares: sum is {} of {}, expected [1] of f64 on the op's device", sum.shape.text(),
           name_of(sum.dtype));
  ctx.kernels.sum_of_squares(ctx, x, sum);
}

void scale(const Context& ctx, double factor, ConstView x, TensorView y, Write write) {
  const Arguments check(ctx, "scale", x.dtype);
  check.matrix("x", x, x.shape[0], x.shape[1]);
  check.matrix("y", y, x.shape[0], x.shape[1]);
  ctx.kernels.scale(ctx, factor, x, y, write);
}

void add_dot(const Context& ctx, ConstView x, ConstView a, ConstView b, TensorView sum) {
  const Arguments check(ctx, "add_dot", x.dtype);
  TS_CHECK(a.shape == x.shape, "add_dot: a is {}, expected {}", a.shape.text(), x.shape.text());
  TS_CHECK(b.empty() || b.shape == x.shape, "add_dot: b is {}, expected {}", b.shape.text(), x.shape.text());
  const Shape flat{x.shape.count()};
  check.vector("x", x.reshape(flat), flat[0]);
  check.vector("a", a.reshape(flat), flat[0]);
  if (!b.empty()) check.vector("b", b.reshape(flat), flat[0]);
  check.vector("sum", sum, 1);
  ctx.kernels.add_dot(ctx, x, a, b, sum);
}

}  // namespace tessera
