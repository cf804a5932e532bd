// Tokens are independent: each rotates its heads, half a head a vector loop.

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

/// direction: 1 or -1, the sign of the angle.
void rope_row(float* x, int64_t heads, int64_t half, const float* cos, const float* sin, float direction) {
  const auto sign = hn::Set(kFloats, direction);
  for (int64_t h = 0; h < heads; ++h, x += 2 * half) {
    for_vectors(half, [&](int64_t i, auto vector) HWY_ATTR {
      // Pairs are an element of the first half of a head and its fellow in the second half: a vector loop has no
      // shuffles.
      const auto a = vector.load(x + i), b = vector.load(x + half + i);
      const auto c = vector.load(cos + i), s = hn::Mul(sign, vector.load(sin + i));
      vector.store(fused_minus(b, s, hn::Mul(a, c)), x + i);
      vector.store(fused(a, s, hn::Mul(b, c)), x + half + i);
    });
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

HWY_EXPORT(rope_row);

}  // namespace

void rope(const Context& ctx, TensorView x, int64_t head_dim, IndexArray<int32_t> positions, ConstView cos,
          ConstView sin, RopeDirection direction) {
  parallel_for(ctx, x.rows(), x.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) HWY_DYNAMIC_DISPATCH(rope_row)
    (x.row<float>(r), x.cols() / head_dim, head_dim / 2, cos.row<float>(positions[r]), sin.row<float>(positions[r]),
     direction == RopeDirection::forward ? 1.0f : -1.0f);
  });
}

}  // namespace tessera::cpu
#endif
