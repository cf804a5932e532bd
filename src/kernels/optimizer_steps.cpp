#include "kernels/optimizer_steps.h"

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {
namespace {

template <class Args> int64_t check_values(const Arguments& check, const Args& args) {
  const int64_t count = args.values.shape.count();
  check.vector("values", args.values, count);
  check.vector("grads", args.grads, count);
  return count;
}

}  // namespace

void adamw_step(const Context& ctx, const AdamWArgs& args) {
  const Arguments check(ctx, "adamw_step", DType::f32);
  const int64_t count = check_values(check, args);
  check.vector("m", args.m, count);
  check.vector("v", args.v, count);
  TS_CHECK(args.correction1 > 0 && args.correction2 > 0, "adamw_step: corrections {} and {} are not above 0",
           args.correction1, args.correction2);
  ctx.kernels.adamw_step(ctx, args);
}

float rest_of(double beta, Rules rules) {
  return rules == Rules::first ? 1 - static_cast<float>(beta) : static_cast<float>(1 - beta);
}

void sgd_step(const Context& ctx, const SgdArgs& args) {
  const Arguments check(ctx, "sgd_step", DType::f32);
  const int64_t count = check_values(check, args);
  if (args.momentum_buffer.empty())
    TS_CHECK(args.momentum == 0 || count == 0, "sgd_step: momentum {} needs its buffer", args.momentum);
  else
    check.vector("momentum_buffer", args.momentum_buffer, count);
  ctx.kernels.sgd_step(ctx, args);
}

}  // namespace tessera
