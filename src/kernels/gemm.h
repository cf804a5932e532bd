#pragma once
// The matrix product: most of the time of training goes here.

#include "kernels/context.h"

namespace tessera {

enum class Transpose : uint8_t { no, yes };

/// C = alpha · op(A) · op(B) + beta · C
///   op(A) [M, K], op(B) [K, N], C [M, N]; a transposed operand is stored the other way round ([K, M], [N, K]).
/// A and C have the compute dtype (f32; on "reference" also f64). B may also be stored in f32, bf16 or f16: it is
/// widened tile by tile, never as a whole. Rows may be strided; columns are contiguous. C aliases neither A nor B.
/// beta = 0 ignores what C held (NaN included). K = 0 gives beta · C.
/// The result does not depend on the number of threads: work is split in fixed blocks.
struct GemmArgs {
  ConstView a;
  Transpose a_transpose = Transpose::no;
  ConstView b;
  Transpose b_transpose = Transpose::no;
  TensorView c;
  double alpha = 1, beta = 0;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.a, args.b, args.c);
  }
};
void gemm(const Context&, const GemmArgs&);

}  // namespace tessera
