#include "kernels/gemm.h"

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {

void gemm(const Context& ctx, const GemmArgs& args) {
  const Arguments check(ctx, "gemm", args.a.dtype);
  TS_CHECK(args.a.shape.rank == 2 && args.c.shape.rank == 2, "gemm: a is {}, c is {}, expected matrices",
           args.a.shape.text(), args.c.shape.text());
  const bool a_transposed = args.a_transpose == Transpose::yes, b_transposed = args.b_transpose == Transpose::yes;
  const int64_t m = args.c.shape[0], n = args.c.shape[1], k = args.a.shape[a_transposed ? 0 : 1];
  check.matrix("a", args.a, a_transposed ? k : m, a_transposed ? m : k);
  check.weight("b", args.b, b_transposed ? Shape{n, k} : Shape{k, n});
  check.matrix("c", args.c, m, n);
  TS_CHECK(args.sum == Sum::blocks || (args.alpha == 1 && (args.beta == 0 || args.beta == 1)),
           "gemm: a chain is not scaled, by alpha {} and beta {}", args.alpha, args.beta);
  check.no_alias("c", args.c, "a", args.a);
  check.no_alias("c", args.c, "b", args.b);
  if (m > 0 && n > 0) ctx.kernels.gemm(ctx, args);
}

}  // namespace tessera
