#pragma once
// An adapter at work: the assembled A and Bt of each adapted weight, and their gradients.

#include <vector>

#include "model/weights.h"

namespace tessera {

/// Matrices that a view can show in place are used in place; the others (MoS) are gathered once per optimizer step and their
/// gradients collected through all micro-batches, then scattered once.
class BoundAdapter {
 public:
  struct Matrices {
    ConstView a, bt;     // [rank, in], [rank, out]
    TensorView da, dbt;  // accumulated by the backward pass
    float scale, dropout;
  };

  BoundAdapter(AdapterWeights, ParameterPool&);
  /// For evaluation only, of what `read` shows: no gradients. Its `flat`, when set, must outlive this object.
  BoundAdapter(AdapterWeights, ParameterPool&, const PoolRead& read);
  /// Reads the pool; call before the first pass and after every change of what it reads.
  void assemble(const Context&);
  /// Adds the collected gradients to the pool, in weight order, and clears them.
  void finish_backward(const Context&);
  /// The delta of a weight, or nullptr.
  const Matrices* find(int weight) const { return by_weight_[weight].a.empty() ? nullptr : &by_weight_[weight]; }
  int64_t rank(int weight) const { return by_weight_[weight].a.empty() ? 0 : by_weight_[weight].a.shape[0]; }
  const AdapterWeights& weights() const { return weights_; }
  int64_t assembled_bytes() const { return storage_.bytes(); }

 private:
  struct Buffers {
    TensorView a, bt, da, dbt;  // empty where the view shows its matrix in place
  };
  void bind(bool gradients);
  AdapterWeights weights_;
  ParameterPool& pool_;
  PoolRead read_;
  Storage storage_;  // of the pool's kind
  std::vector<Matrices> by_weight_;
  std::vector<Buffers> buffers_;
};

}  // namespace tessera
