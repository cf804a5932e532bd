#pragma once
// What the cure of a folded model lowers: cross-entropy, the divergence from the original model's distribution, and the
// distance of the last layers' outputs from the original's.

#include "compress/fold_config.h"
#include "compress/teacher.h"
#include "train/trained_loss.h"

namespace tessera {

/// Over the scored tokens of a batch, with T = fold.temperature:
///   Σ nll + fold.kl_weight · T² · Σ KL(teacher_T || student_T)
///         + fold.tail_weight · Σ over the last fold.tail_layers layers of Σ ‖n(h_s) − n(h_t)‖² / d
/// h_s is the residual stream behind a layer of the student, h_t that behind the same block of the original, x_L for
/// the last layer; n(x) = x / sqrt(mean(x²) + eps) with the eps of the model's norms (kernels/tail_loss.h). Nothing is
/// differentiated with respect to the teacher, which runs first and as far as one of the weights asks for.
class CureLoss final : public TrainedLoss {
 public:
  /// @param teacher  the original of the folded models that the loss is taken of; it outlives the loss
  CureLoss(const FoldConfig&, Model& teacher);

  std::vector<std::string> parts() const override;  // "nll", and "kl" and "tail" where they have weights
  double lowered(const Sums&) const override;
  Sums add_gradients(const Context&, Model& student, const PackedBatch&, const BackpropOptions&,
                     Sums sums) const override;

 private:
  /// A layer whose output is compared, and the teacher's state that it is compared with.
  struct TailLayer {
    int layer, state;
  };
  std::vector<TailLayer> tail_of(const Model& student) const;
  std::vector<TensorView> taught(const Context&, const TokenBatch&, std::span<const TailLayer>) const;
  TaughtScores score(const Pass&, const DecoderModel&, ConstView hidden, const BatchTokens&,
                     std::span<const TensorView> taught, TensorView dhidden) const;
  /// `sums` and those of the batch. @param tail  of each scored row, over all layers
  Sums added(const Context&, const PackedBatch&, const BatchTokens&, const TaughtScores&, ConstView tail,
             Sums sums) const;
  bool has_kl() const { return kl_weight_ > 0; }
  bool has_tail() const { return tail_weight_ > 0; }

  double kl_weight_, temperature_, tail_weight_;
  int64_t tail_layers_;
  Teacher teacher_;
};

/// Whether the loss that these keys say has a teacher's part.
bool has_teacher(const FoldConfig&);

/// Bytes of the arena that a step's pass takes.
int64_t plan_cure_bytes(const CureLoss&, Model& student, int64_t rows, int64_t sequence_length, int threads,
                        bool checkpoint_activations);

}  // namespace tessera
