#pragma once
// Arguments of the optimizers' steps with settings that are common and all at work, for tests that are not about them.

#include <cmath>

#include "kernels/optimizer_steps.h"

namespace tessera::test {

/// AdamW's seventh step.
inline AdamWArgs adamw_args(TensorView values, ConstView grads, TensorView m, TensorView v) {
  return {.values = values,
          .grads = grads,
          .m = m,
          .v = v,
          .lr = 3e-3f,
          .beta1 = 0.9f,
          .beta2 = 0.999f,
          .rest1 = 0.1f,
          .rest2 = 0.001f,
          .eps = 1e-8f,
          .weight_decay = 0.1f,
          .step_scale = 0.5f,
          .grad_scale = 0.25f,
          .correction1 = 1 - std::pow(0.9, 7),
          .correction2 = 1 - std::pow(0.999, 7)};
}

/// @param momentum_buffer  empty: without momentum
inline SgdArgs sgd_args(TensorView values, ConstView grads, TensorView momentum_buffer) {
  return {.values = values,
          .grads = grads,
          .momentum_buffer = momentum_buffer,
          .lr = 0.1f,
          .momentum = momentum_buffer.empty() ? 0.0f : 0.9f,
          .weight_decay = 0.01f,
          .step_scale = 2,
          .grad_scale = 0.5f};
}

}  // namespace tessera::test
