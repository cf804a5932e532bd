#include "kernels/rope.h"

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {

void rope(const Context& ctx, TensorView x, int64_t head_dim, IndexArray<int32_t> positions, ConstView cos,
          ConstView sin, RopeDirection direction) {
  const Arguments check(ctx, "rope", x.dtype);
  check.matrix("x", x, x.shape[0], x.shape[1]);
  TS_CHECK(head_dim > 0 && head_dim % 2 == 0 && x.shape[1] % head_dim == 0, "rope: {} columns do not hold heads of {}",
           x.shape[1], head_dim);
  check.count("positions", static_cast<int64_t>(positions.size()), x.shape[0]);
  check.matrix("cos", cos, cos.shape[0], head_dim / 2);
  check.matrix("sin", sin, cos.shape[0], head_dim / 2);
  check.indices("positions", positions, cos.shape[0]);
  ctx.kernels.rope(ctx, x, head_dim, positions, cos, sin, direction);
}

}  // namespace tessera
