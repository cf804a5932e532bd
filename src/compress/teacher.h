#pragma once
// The original model as a teacher of one that is made of it: passes without gradients, which keep the residual stream
// where it is asked for. Both models may read one mapped file (folded_model.h).

#include <span>
#include <vector>

#include "model/distill_head.h"
#include "model/model.h"
#include "score/forward.h"

namespace tessera {

class Teacher {
 public:
  /// @param original  outlives the teacher; assembled, where it has deltas
  explicit Teacher(Model& original) : model_(original) {}

  DecoderModel& decoder() const { return model_.decoder(); }
  int num_layers() const { return model_.decoder().num_layers(); }

  /// The residual stream x_l in front of block l, and x_L behind the last block, before the final norm.
  /// @param batch  of any model with the same vocabulary: its ids, positions and segments are read
  /// @param at     the l's, ascending, 0 .. L. Blocks behind the last of them are not run
  /// @return [T, D] each, from the context's scratch: open a scope around the call
  std::vector<TensorView> states(const Context&, const TokenBatch& batch, std::span<const int> at) const;

  /// Final norm and head, for distill_rows. @param hidden  x_L  @param rows  of it: a student's scored ones
  TeacherHead head(ConstView hidden, IndexArray<int32_t> rows) const {
    return {.part = decoder().head_part(), .read = {&model_.pool()}, .hidden = hidden, .rows = rows};
  }
  /// Held while the head is read.
  WeightLease lease_head(const Context&, const TokenBatch&) const;

 private:
  Model& model_;
};

/// What a loss gives the terms of a scored row: nll · Σ cross-entropy + kl · temperature² · Σ divergence.
struct TaughtWeights {
  double temperature = 1, kl = 1, nll = 1;
};

/// Of the scored rows, from the pass's scratch.
struct TaughtScores {
  RowScores rows;
  TensorView kl;  // [rows]: KL(teacher || student); empty without a divergence
};

/// The student's head beside the teacher's.
/// @param hidden, teachers  x behind the last layer of each  @param dhidden  += the gradient; empty: forward alone
TaughtScores score_taught(const Pass&, const DecoderModel& student, ConstView hidden, const BatchTokens&,
                          const Teacher&, ConstView teachers, const TaughtWeights&, TensorView dhidden);

/// `sum` and then the rows, added one after the other in f64, on the host.
double sum_of_rows(const ConstView& rows, double sum = 0);

}  // namespace tessera
