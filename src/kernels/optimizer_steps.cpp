#include "kernels/optimizer_steps.h"

#include "kernels/checks.h"

namespace tessera {

void adamw_step(const Context& ctx, const AdamWArgs& args) {
  const Arguments check(ctx, "adamw_step", DType::f32);
  const auto count = static_cast<int64_t>(args.values.size());
  check.count("grads", static_cast<int64_t>(args.grads.size()), count);
  check.count("m", static_cast<int64_t>(args.m.size()), count);
  check.count("v", static_cast<int64_t>(args.v.size()), count);
  TS_CHECK(args.correction1 > 0 && args.correction2 > 0, "adamw_step: corrections {} and {} are not above 0",
           args.correction1, args.correction2);
  ctx.kernels.adamw_step(ctx, args);
}

float rest_of(double beta, Rules rules) {
  return rules == Rules::first ? 1 - static_cast<float>(beta) : static_cast<float>(1 - beta);
}

void sgd_step(const Context& ctx, const SgdArgs& args) {
  const Arguments check(ctx, "sgd_step", DType::f32);
  const auto count = static_cast<int64_t>(args.values.size());
  check.count("grads", static_cast<int64_t>(args.grads.size()), count);
  if (args.momentum_buffer.empty())
    TS_CHECK(args.momentum == 0 || count == 0, "sgd_step: momentum {} needs its buffer", args.momentum);
  else
    check.count("momentum_buffer", static_cast<int64_t>(args.momentum_buffer.size()), count);
  ctx.kernels.sgd_step(ctx, args);
}

}  // namespace tessera
