#pragma once
// AdamW over all trainable slots of a pool, as plainly as can be: what a run of the trainer is compared with.

#include <cmath>
#include <vector>

#include "model/parameter_pool.h"
#include "support/optimizer_args.h"

namespace tessera::test {

struct AdamW {
  float lr = 1e-2f, weight_decay = 0;
  double beta1 = 0.9, beta2 = 0.999;
  int64_t steps = 0;
  std::vector<float> m{}, v{};

  /// @param count  gradients are sums over this many tokens
  void step(const Context& ctx, ParameterPool& pool, int64_t count) {
    const auto values = pool.trainable().values.as<float>();
    m.resize(values.size());
    v.resize(values.size());
    ++steps;
    AdamWArgs args = adamw_args(values, pool.trainable().grads.as<float>(), m, v);
    args.lr = lr;
    args.beta1 = static_cast<float>(beta1);
    args.beta2 = static_cast<float>(beta2);
    args.rest1 = static_cast<float>(1 - beta1);
    args.rest2 = static_cast<float>(1 - beta2);
    args.weight_decay = weight_decay;
    args.step_scale = 1;
    args.grad_scale = 1.0f / static_cast<float>(count);
    args.correction1 = 1 - std::pow(beta1, steps);
    args.correction2 = 1 - std::pow(beta2, steps);
    adamw_step(ctx, args);
    pool.zero_grads();
  }
};

}  // namespace tessera::test
