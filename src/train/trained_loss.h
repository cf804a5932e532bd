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

  /// Sums over the scored tokens of a batch. They are added over batches and ranks and divided by the global count.
  struct Sums {
    double lowered = 0;  // what the gradients are of
    double scored = 0;   // tokens
    std::vector<double> parts{};
  };
  /// What metrics and progress lines tell beside the loss: a name for each of Sums::parts.
  virtual std::vector<std::string> parts() const = 0;
  /// One forward and backward pass, as backprop_batch: gradients of `lowered` are added to the pool.
  virtual Sums add_gradients(const Context&, Model&, const PackedBatch&, const BackpropOptions&) const = 0;
};

}  // namespace tessera
