#include "kernels/product_rate.h"

#include <chrono>

#include "kernels/compute.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

// Even the plain loops of a CPU without fused multiply-add end a product of the smallest within a second.
constexpr int64_t kSmallest = 128, kLargest = 2048;
constexpr int64_t kEnough = 1024;  // products of this size are within some per cent of the limit
constexpr double kLook = 0.01;     // seconds that the smallest is looked at

double flop_of(int64_t rows, int64_t width) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(width) * static_cast<double>(width);
}

/// Operands in the scratch, and the product of them.
class Product {
 public:
  Product(const Context& ctx, int64_t rows, int64_t width)
      : ctx_(ctx),
        a_(ctx.scratch.allocate({rows, width}, DType::f32)),
        b_(ctx.scratch.allocate({width, width}, DType::f32)),
        c_(ctx.scratch.allocate({rows, width}, DType::f32)) {
    // Numbers as any: zeros would take less power than what is to be compared with them.
    fill(ctx, 0.7, a_);
    fill(ctx, -1.3, b_);
  }
  void form() const { gemm(ctx_, {.a = a_, .b = b_, .b_transpose = Transpose::yes, .c = c_}); }

 private:
  const Context& ctx_;
  TensorView a_, b_, c_;
};

/// Of scratch, that a square product takes.
int64_t bytes_of(const Context& ctx, int64_t size) {
  const Compute counting = Compute::counting(ctx.device, ctx.threads);
  const Context& counted = counting;
  Product(counted, size, size).form();
  return counted.scratch.peak_bytes();
}

}  // namespace

double product_rate(const Context& ctx, int64_t rows, int64_t width, double seconds) {
  const auto scope = ctx.scratch.scope();
  const Product product(ctx, rows, width);
  product.form();
  const auto begin = Clock::now();
  int64_t count = 0;
  double passed = 0;
  while (count == 0 || passed < seconds) {
    product.form();
    ++count;
    passed = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return flop_of(rows, width) * static_cast<double>(count) / passed;
}

double limit_rate(const Context& ctx, double seconds) {
  const int64_t room = ctx.scratch.capacity_bytes() - ctx.scratch.used_bytes(), least = bytes_of(ctx, kEnough);
  if (room < least) return limit_rate(Compute::beside(ctx, least), seconds);
  const double rate = product_rate(ctx, kSmallest, kSmallest, kLook);
  int64_t size = kSmallest;
  while (size < kLargest && bytes_of(ctx, 2 * size) <= room && flop_of(2 * size, 2 * size) <= rate * seconds / 2)
    size *= 2;
  return product_rate(ctx, size, size, seconds);
}

}  // namespace tessera
