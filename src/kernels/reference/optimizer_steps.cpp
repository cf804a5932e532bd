// f32 in the order written, not f64: these are the bits that every backend must produce.

#include <cmath>

#include "kernels/reference/reference_kernels.h"

namespace tessera::reference {

void adamw_step(const Context&, const AdamWArgs& args) {
  const float c1 = static_cast<float>(args.correction1), c2 = static_cast<float>(args.correction2);
  const float decay = args.lr * args.weight_decay, rate = args.lr * args.step_scale;
  const auto values = args.values.as<float>(), m = args.m.as<float>(), v = args.v.as<float>();
  const auto grads = args.grads.as<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    // No operation may be fused or reordered here: every backend gives these bits, and replicas compare digests of
    // them.
    const float g = args.grad_scale * grads[i];
    m[i] = args.beta1 * m[i] + args.rest1 * g;
    v[i] = args.beta2 * v[i] + args.rest2 * (g * g);
    const float w = values[i], direction = (m[i] / c1) / (std::sqrt(v[i] / c2) + args.eps);
    values[i] = (w - decay * w) - rate * direction;
  }
}

void sgd_step(const Context&, const SgdArgs& args) {
  const float decay = args.lr * args.weight_decay, rate = args.lr * args.step_scale;
  const auto values = args.values.as<float>();
  const auto grads = args.grads.as<float>();
  const auto buffer = args.momentum_buffer.empty() ? std::span<float>() : args.momentum_buffer.as<float>();
  for (size_t i = 0; i < values.size(); ++i) {
    float b = args.grad_scale * grads[i];
    if (!buffer.empty()) b = buffer[i] = args.momentum * buffer[i] + b;
    const float w = values[i];
    values[i] = (w - decay * w) - rate * b;
  }
}

}  // namespace tessera::reference
