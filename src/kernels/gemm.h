#pragma once
// The matrix product: most of the time of training goes here.

#include "kernels/context.h"

namespace tessera {

enum class Transpose : uint8_t { no, yes };

/// The order in which an element is summed. Both are of fused multiply-adds over k ascending, each rounded once.
///   blocks: k is cut into blocks of 384 from its first; s1, s2, ... are their sums, each from 0;
///           C = fma(beta, C, alpha · s1), then alpha · s2, ... are added. Short sums lose less beside a large C.
///   chain:  one sum that goes on from beta · C, without blocks: what is added in several calls has the bits of one
///           call over all of its k. For gradients, summed over tokens. alpha is 1, beta 0 or 1.
enum class Sum : uint8_t { blocks, chain };

/// C = alpha · op(A) · op(B) + beta · C
///   op(A) [M, K], op(B) [K, N], C [M, N]; a transposed operand is stored the other way round ([K, M], [N, K]).
/// A and C have the compute dtype (f32; on "reference" also f64). B may also be stored in f32, bf16 or f16: it is
/// widened tile by tile, never as a whole. Rows may be strided; columns are contiguous. C aliases neither A nor B.
/// beta = 0 ignores what C held (NaN included). K = 0 gives beta · C.
/// An element's bits depend on its row of op(A), its column of op(B) and what C held: not on the other rows and
/// columns, nor on threads or the instruction set.
struct GemmArgs {
  ConstView a;
  Transpose a_transpose = Transpose::no;
  ConstView b;
  Transpose b_transpose = Transpose::no;
  TensorView c;
  double alpha = 1, beta = 0;
  Sum sum = Sum::blocks;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.a, args.b, args.c);
  }
};
void gemm(const Context&, const GemmArgs&);

}  // namespace tessera
