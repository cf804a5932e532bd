#include "compress/product_rate.h"

#include <chrono>

#include "core/device/memory.h"
#include "kernels/gemm.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kRows = 256, kWidth = 768;  // a pass of small models
constexpr double kSeconds = 0.5;

}  // namespace

double product_rate(const Compute::Choice& choice) {
  const Compute compute(choice, 32 << 20);
  const Context& ctx = compute;
  const Tensor a({kRows, kWidth}, DType::f32, ctx.device), b({kWidth, kWidth}, DType::f32, ctx.device),
      c({kRows, kWidth}, DType::f32, ctx.device);
  const auto product = [&] { gemm(ctx, {.a = a, .b = b, .b_transpose = Transpose::yes, .c = c}); };
  product();
  int64_t count = 0;
  const auto begin = Clock::now();
  double seconds = 0;
  for (; seconds < kSeconds; ++count) {
    product();
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return 2.0 * kRows * kWidth * kWidth * static_cast<double>(count) / seconds;
}

}  // namespace tessera
