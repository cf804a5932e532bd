// f32 in the order written, not f64: these are the bits that every backend must produce.

#include <cmath>

#include "kernels/reference/reference_kernels.h"

namespace tessera::reference {

void adamw_step(const Context&, const AdamWArgs& args) {
  const float c1 = static_cast<float>(args.correction1), c2 = static_cast<float>(args.correction2);
  const float decay = args.lr * args.weight_decay, rate = args.lr * args.step_scale;
  for (size_t i = 0; i < args.values.size(); ++i) {
    const float g = args.grad_scale * args.grads[i];
    args.m[i] = args.beta1 * args.m[i] + args.rest1 * g;
    args.v[i] = args.beta2 * args.v[i] + args.rest2 * (g * g);
    const float w = args.values[i], direction = (args.m[i] / c1) / (std::sqrt(args.v[i] / c2) + args.eps);
    args.values[i] = (w - decay * w) - rate * direction;
  }
}

void sgd_step(const Context&, const SgdArgs& args) {
  const float decay = args.lr * args.weight_decay, rate = args.lr * args.step_scale;
  for (size_t i = 0; i < args.values.size(); ++i) {
    float b = args.grad_scale * args.grads[i];
    if (!args.momentum_buffer.empty()) b = args.momentum_buffer[i] = args.momentum * args.momentum_buffer[i] + b;
    const float w = args.values[i];
    args.values[i] = (w - decay * w) - rate * b;
  }
}

}  // namespace tessera::reference
