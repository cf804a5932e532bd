#pragma once
// Updates of the weights by AdamW and SGD. All state is f32; the rate and the bias corrections are the caller's.

#include "core/rules.h"
#include "kernels/context.h"

namespace tessera {

/// One AdamW step on flat f32 memory, with g = grad_scale · grads (Loshchilov & Hutter 2019, arXiv:1711.05101):
///   m <- β1 m + rest1 g,   v <- β2 v + rest2 g²,   rest = 1−β,
///   w <- w − lr·wd·w − lr·step_scale · (m / c1) / (sqrt(v / c2) + eps),   c1 = 1−β1^t, c2 = 1−β2^t
/// Same bits on every backend and for any number of threads: no contraction, operations in the order written.
struct AdamWArgs {
  TensorView values;  // [n] f32, like all here
  ConstView grads;
  TensorView m, v;
  float lr, beta1, beta2, rest1, rest2, eps, weight_decay, step_scale, grad_scale;
  double correction1, correction2;  // c1, c2

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.values, args.grads, args.m, args.v);
  }
};
void adamw_step(const Context&, const AdamWArgs&);

/// 1 − β for a step: rounded once. Under the first rules of the rounded β, which for 0.9999999 is 19 % more.
float rest_of(double beta, Rules);

/// SGD with momentum, g = grad_scale · grads:
///   b <- μ b + g,  w <- w − lr·wd·w − lr·step_scale · b.  Empty b (μ = 0): b = g.
struct SgdArgs {
  TensorView values;
  ConstView grads;
  TensorView momentum_buffer;
  float lr, momentum, weight_decay, step_scale, grad_scale;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.values, args.grads, args.momentum_buffer);
  }
};
void sgd_step(const Context&, const SgdArgs&);

}  // namespace tessera
