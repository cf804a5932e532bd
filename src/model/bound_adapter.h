#pragma once
// An adapter at work: the assembled A and Bt of each delta, and their gradients.

#include <vector>

#include "model/weight_lease.h"

namespace tessera {

/// Matrices that a view can show in place are used in place; the others (MoS) are gathered once per optimizer step and
/// their gradients collected through all micro-batches, then scattered once.
class BoundAdapter {
 public:
  struct Matrices {
    ConstView a, bt;     // [rank, in], [rank, out]
    TensorView da, dbt;  // accumulated by the backward pass; empty: frozen
    float scale, dropout;
    int64_t rank() const { return a.shape[0]; }
  };

  BoundAdapter(AdapterWeights, ParameterPool&);
  /// For evaluation only, of what `read` shows: no gradients. Its `flat`, when set, must outlive this object.
  BoundAdapter(AdapterWeights, ParameterPool&, const PoolRead& read);
  /// Reads the pool; call before the first pass and after every change of what it reads.
  void assemble(const Context&);
  /// Adds the collected gradients to the pool, in weight order, and clears them.
  void finish_backward(const Context&);
  /// The deltas of a weight, in the order in which they are added; mostly none or one. Matrices that are used in place
  /// are looked up anew at each call: under another lease they may lie elsewhere.
  std::span<const Matrices> deltas(int weight);
  /// Adds the views that `deltas` shows in place.
  void lease(int weight, WeightLease&) const;
  int64_t rank(int weight) const;  // of all of them together
  const AdapterWeights& weights() const { return weights_; }
  int64_t assembled_bytes() const { return storage_.bytes(); }

 private:
  struct Buffers {
    TensorView a, bt, da, dbt;  // empty where the view shows its matrix in place
  };
  void bind(bool gradients);
  template <class F> void for_each(F&&) const;  // f(delta, its buffers), by weight
  AdapterWeights weights_;
  ParameterPool& pool_;
  PoolRead read_;
  Storage storage_;  // of the pool's kind
  std::vector<std::vector<Matrices>> by_weight_;
  std::vector<std::vector<Buffers>> buffers_;
};

}  // namespace tessera
