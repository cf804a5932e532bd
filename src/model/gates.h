#pragma once
// Gates of a decoder's blocks: how much of what a block, or each half of it, adds enters the residual stream.
//
//   blocks      out = x + g · F(x),  F(x) = A(x) + M(x + A(x)): attention's part, and the MLP's, which sees the first
//               ungated
//   sublayers   y = x + g · A(x),  out = y + h · M(y)
//
// Where all rows have gate 1 the ordinary path runs, bit for bit: its products add up on the residual in the kernels'
// own order, which a part formed alone and added afterwards would not meet in the last bits. Where all have 0 nothing
// is computed and rows are handed on as they are (0 · F would turn -0 into +0 and an infinity into NaN); such a gate
// gets no gradient. At any other value the part is formed alone and kept unscaled, because the gate's gradient is
// <dout, part>. Groups of rows may differ in a gate: then the part is formed alone for all of them, and rows with 0 are
// still handed on as they are.

#include "model/pass.h"

namespace tessera {

/// One gate, as the rows of a batch have it.
class Gate {
 public:
  enum class Path { ordinary, skipped, separate };

  /// No gate: the ordinary path.
  explicit Gate(const Pass& pass) : pass_(pass) {}
  /// @param place  in BlockGates::values
  Gate(const Pass& pass, size_t place) : pass_(pass), place_(place), exists_(true) {}

  bool exists() const { return exists_; }
  /// Which way the rows go. A counting pass goes the separate one, which takes the most memory.
  Path path() const;
  bool is_skipped() const { return path() == Path::skipped; }

  /// out += g · part
  void add(ConstView part, TensorView out) const;
  /// The gate's gradient += <dout, part − before>; before empty: <dout, part>.
  void add_gradient(ConstView dout, ConstView part, ConstView before) const;
  /// dpart = g · dout
  void scale_gradient(ConstView dout, TensorView dpart) const;
  /// dx += (1 − g) · dout, which makes dout + Jᵀ (g · dout) of g · dout + Jᵀ (g · dout).
  void add_rest(ConstView dout, TensorView dx) const;

 private:
  double value(const RowGroup& group) const { return group.gates.values[place_]; }
  template <class F> void for_each_group(F&&) const;  // f(gate, begin, end)

  const Pass& pass_;
  size_t place_ = 0;
  bool exists_ = false;
};

/// The gates of one layer; what is not gated has one that does not exist.
struct LayerGates {
  Gate block, attention, mlp;
};
LayerGates layer_gates(const Pass&, int layer);

/// What the batch's gates are of. @throws InternalError when groups differ in it
BlockGates::Of gated(const TokenBatch&);

}  // namespace tessera
