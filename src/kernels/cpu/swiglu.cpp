// Elementwise, bound by memory and by exp (about twenty operations a vector).

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/swiglu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

void swiglu_row(const float* gate, const float* up, int64_t dim, float* y) {
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    // Gate and up are read once, and y is written once: the rest happens in registers.
    const auto g = vector.load(gate + i);
    vector.store(hn::Mul(hn::Mul(g, sigmoid_lanes(g)), vector.load(up + i)), y + i);
  });
}

void swiglu_backward_row(const float* gate, const float* up, const float* dy, int64_t dim, float* dgate, float* dup) {
  const auto one = hn::Set(kFloats, 1.0f);
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const auto g = vector.load(gate + i), u = vector.load(up + i), d = vector.load(dy + i);
    const auto s = sigmoid_lanes(g);
    // silu'(g) = σ(g) (1 + g (1 − σ(g))). The sigmoid is formed again rather than kept: exp is cheaper than memory.
    const auto slope = hn::Mul(s, fused(g, hn::Sub(one, s), one));
    vector.store(hn::Mul(hn::Mul(d, u), slope), dgate + i);
    vector.store(hn::Mul(d, hn::Mul(g, s)), dup + i);
  });
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

HWY_EXPORT(swiglu_row);
HWY_EXPORT(swiglu_backward_row);

}  // namespace

void swiglu(const Context& ctx, ConstView gate, ConstView up, TensorView y) {
  parallel_for(ctx, gate.rows(), gate.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      HWY_DYNAMIC_DISPATCH(swiglu_row)(gate.row<float>(r), up.row<float>(r), gate.cols(), y.row<float>(r));
  });
}

void swiglu_backward(const Context& ctx, ConstView gate, ConstView up, ConstView dy, TensorView dgate, TensorView dup) {
  parallel_for(ctx, gate.rows(), gate.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) HWY_DYNAMIC_DISPATCH(swiglu_backward_row)
    (gate.row<float>(r), up.row<float>(r), dy.row<float>(r), gate.cols(), dgate.row<float>(r), dup.row<float>(r));
  });
}

}  // namespace tessera::cpu
#endif
