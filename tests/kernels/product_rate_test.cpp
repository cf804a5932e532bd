#include "kernels/product_rate.h"

#include <gtest/gtest.h>

#include <chrono>

#include "kernels/elementwise.h"
#include "kernels/harness.h"

namespace tessera::test {
namespace {

double seconds_of(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(ProductRate, IsThatOfProductsOneAfterTheOther) {
  double rate = 0;
  const double seconds = seconds_of([&] { rate = product_rate(On("cpu"), 64, 128, 0.05); });
  EXPECT_GE(seconds, 0.05);
  const double least = 2.0 * 64 * 128 * 128 / seconds;  // one product in all that time
  EXPECT_GT(rate, 10 * least);
}

TEST(ProductRate, OfTheLimitLeavesTheScratchAsItWas) {
  On large("cpu", 2);
  const int64_t capacity = large.scratch().capacity_bytes();
  const TensorView kept = large.scratch().allocate({capacity / 4 - 4096}, DType::f32);
  fill(large, 3, kept);
  EXPECT_GT(limit_rate(large, 0.02), 0) << "its memory is its own where the scratch is full";
  for (const float x : kept.as<float>()) ASSERT_EQ(x, 3);
}

TEST(ProductRate, OfTheLimitIsTakenFromTheScratchWhereThereIsRoom) {
  Arena scratch(int64_t{64} << 20);
  const Context ctx{.device = {}, .stream = {}, .kernels = kernels_for({}, "cpu"), .scratch = scratch, .threads = 1};
  limit_rate(ctx, 0.02);
  EXPECT_GT(scratch.peak_bytes(), 0);
  EXPECT_EQ(scratch.used_bytes(), 0);
}

TEST(ProductRate, OfSlowLoopsTakesLittleLonger) {
  EXPECT_LT(seconds_of([] { limit_rate(On("reference"), 0.05); }), 10) << "a product of 2,048 would take longer";
}

}  // namespace
}  // namespace tessera::test
