#pragma once
// The decoder's end under a teacher: final norm and output projection of both, cross-entropy, and the divergence from
// the teacher's distribution (kernels/distillation.h).

#include "model/head.h"

namespace tessera {

/// A teacher's end, and the hidden states that it is read from. It may share weights with the student; no gradient goes
/// into it.
struct TeacherHead {
  HeadPart part;
  PoolRead read;             // what its weights are read with
  ConstView hidden;          // [T', D'] its last block's output
  IndexArray<int32_t> rows;  // of `hidden`: one for each of the student's scored rows, in their order
};

/// What is lowered: nll_weight · Σ nll + kl_weight · temperature² · Σ kl.
struct DistillHeadArgs {
  HeadArgs head;  // dhidden += gradient of the whole
  TeacherHead teacher;
  double temperature, kl_weight;
  TensorView kl;  // [rows] out
  double nll_weight = 1;
};

/// Final norms and fused distillation of the given rows of hidden. nll and best are those of score_rows, to the bit
/// unless a head is made tile by tile (then only the order of sums differs).
void distill_rows(const Pass&, const HeadPart&, ConstView hidden, const DistillHeadArgs&);

}  // namespace tessera
