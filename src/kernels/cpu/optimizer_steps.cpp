// One pass over flat memory. No fused multiply-add: the bits are those of the reference.

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizer_steps.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/optimizer_steps.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

void adamw_range(const AdamWArgs& args, int64_t begin, int64_t end) {
  const auto beta1 = hn::Set(kFloats, args.beta1), beta2 = hn::Set(kFloats, args.beta2);
  const auto rest1 = hn::Set(kFloats, args.rest1), rest2 = hn::Set(kFloats, args.rest2);
  // The starts of m and v at zero are corrected by division, as written in the reference: times the reciprocal would
  // give other bits.
  const auto c1 = hn::Set(kFloats, static_cast<float>(args.correction1)),
             c2 = hn::Set(kFloats, static_cast<float>(args.correction2));
  // Decay is decoupled: it acts on the weight itself and does not pass through the moments.
  const auto decay = hn::Set(kFloats, args.lr * args.weight_decay), rate = hn::Set(kFloats, args.lr * args.step_scale);
  const auto eps = hn::Set(kFloats, args.eps), grad_scale = hn::Set(kFloats, args.grad_scale);
  float *values = args.values.row<float>(0) + begin, *first = args.m.row<float>(0) + begin,
        *second = args.v.row<float>(0) + begin;
  const float* grads = args.grads.row<float>(0) + begin;
  for_vectors(end - begin, [&](int64_t i, auto vector) HWY_ATTR {
    const auto g = hn::Mul(grad_scale, vector.load(grads + i));
    // Products and sums are rounded one by one, as written in the reference; a fused operation would round once less.
    const auto m = hn::Add(hn::Mul(beta1, vector.load(first + i)), hn::Mul(rest1, g));
    const auto v = hn::Add(hn::Mul(beta2, vector.load(second + i)), hn::Mul(rest2, hn::Mul(g, g)));
    // The weight as it was before the step: both the decay and the direction are taken from it.
    const auto w = vector.load(values + i);
    const auto direction = hn::Div(hn::Div(m, c1), hn::Add(hn::Sqrt(hn::Div(v, c2)), eps));
    vector.store(m, first + i);
    vector.store(v, second + i);
    vector.store(hn::Sub(hn::Sub(w, hn::Mul(decay, w)), hn::Mul(rate, direction)), values + i);
  });
}

void sgd_range(const SgdArgs& args, int64_t begin, int64_t end) {
  const auto momentum = hn::Set(kFloats, args.momentum), grad_scale = hn::Set(kFloats, args.grad_scale);
  const auto decay = hn::Set(kFloats, args.lr * args.weight_decay), rate = hn::Set(kFloats, args.lr * args.step_scale);
  float* values = args.values.row<float>(0) + begin;
  float* buffer = args.momentum_buffer.empty() ? nullptr : args.momentum_buffer.row<float>(0) + begin;
  const float* grads = args.grads.row<float>(0) + begin;
  for_vectors(end - begin, [&](int64_t i, auto vector) HWY_ATTR {
    auto b = hn::Mul(grad_scale, vector.load(grads + i));
    if (buffer) {
      b = hn::Add(hn::Mul(momentum, vector.load(buffer + i)), b);
      vector.store(b, buffer + i);
    }
    const auto w = vector.load(values + i);
    vector.store(hn::Sub(hn::Sub(w, hn::Mul(decay, w)), hn::Mul(rate, b)), values + i);
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

HWY_EXPORT(adamw_range);
HWY_EXPORT(sgd_range);

}  // namespace

void adamw_step(const Context& ctx, const AdamWArgs& args) {
  parallel_for(ctx, args.values.shape.count(), 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(adamw_range)(args, begin, end);
  });
}

void sgd_step(const Context& ctx, const SgdArgs& args) {
  parallel_for(ctx, args.values.shape.count(), 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(sgd_range)(args, begin, end);
  });
}

}  // namespace tessera::cpu
#endif
