#pragma once
// How far a student's hidden states are from its teacher's, whatever their size: what distillation of a network's last
// layers lowers.

#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

/// With n(x) = x / sqrt(mean(x²) + eps), for the listed rows:
///   e = n(student) − n(teacher),   loss[i] += ‖e‖² / dim for the i-th of them
///   dstudent += grad_scale · (2 / dim) · r · (e − n · mean(e · n))
/// with n = n(student), r = 1 / sqrt(mean(student²) + eps), which is grad_scale times the gradient of what was added to
/// `loss`. Rows keep a loss each, so that callers add them in the order of the rows, whatever a pass holds.
struct TailLossArgs {
  ConstView student, teacher;  // [tokens, dim] compute dtype, rows may be strided
  IndexArray<int32_t> rows;    // ascending, each once
  double eps;                  // above 0: a row of zeros stays zeros
  double grad_scale = 1;
  TensorView loss;      // [rows] f64
  TensorView dstudent;  // [tokens, dim] compute dtype, rows may be strided; empty: no gradients

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.student, args.teacher, args.rows, args.loss, args.dstudent);
  }
};
void tail_loss(const Context&, const TailLossArgs&);

}  // namespace tessera
