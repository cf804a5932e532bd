#pragma once
// What backpropagation lowers where that is not the cross-entropy of its rows alone: a student's loss under a teacher.

#include <string>
#include <vector>

#include "score/loss_sums.h"
#include "train/backprop.h"

namespace tessera {

class TrainedLoss {
 public:
  virtual ~TrainedLoss() = default;

  /// Sums over the scored tokens of one or more batches, row after row. They are added over ranks and divided by the
  /// global count.
  struct Sums {
    double scored = 0;            // tokens
    std::vector<double> parts{};  // empty before the first batch
  };
  /// What metrics and progress lines tell beside the loss: a name for each of Sums::parts.
  virtual std::vector<std::string> parts() const = 0;
  /// What the gradients are of: a sum of the parts by their weights.
  virtual double lowered(const Sums&) const = 0;
  /// One forward and backward pass, as backprop_batch: gradients of what is lowered are added to the pool.
  /// @param sums  of the batches in front of this one; those that are returned go on from there
  virtual Sums add_gradients(const Context&, Model&, const PackedBatch&, const BackpropOptions&, Sums sums) const = 0;
};

}  // namespace tessera
