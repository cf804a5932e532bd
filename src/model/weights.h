#pragma once
// Virtual parameters: what the model asks for (WeightSpec) and how it reads them (WeightView) from the physical pool.
// A sharing method is one linear map W = S p and its adjoint; the model never owns weights.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/direction.h"
#include "kernels/context.h"
#include "model/parameter_pool.h"

namespace tessera {

enum class Role { embedding, linear, bias, norm, head };

/// Layers [begin, end).
struct LayerRange {
  int begin, end;
};

/// What a weight does in the network: between input_norm and down_bias, in the block of its layer.
enum class Part {
  embedding,
  input_norm,
  q,
  k,
  v,
  o,
  q_bias,
  k_bias,
  v_bias,
  o_bias,
  q_norm,
  k_norm,
  mlp_norm,
  gate,
  up,
  down,
  gate_bias,
  up_bias,
  down_bias,
  final_norm,
  head
};

/// What the model asks for. Names are Hugging Face's.
struct WeightSpec {
  std::string name;  // "model.layers.3.self_attn.q_proj.weight"
  std::string type;  // path inside the block as HF writes it: "self_attn.q_proj"; empty outside blocks
  int layer = -1;    // -1 outside blocks
  Role role = Role::linear;
  Part part = Part::q;
  Shape shape;  // [out, in] for linears, whatever the storage order
  Init init;
  std::string storage;      // equal storage = one physical tensor (a tied head)
  bool transposed = false;  // stored [in, out] (GPT-2's Conv1D)
  std::string source{};     // its name in the base model's files, where that is another; empty: `name`

  const std::string& name_in_files() const { return source.empty() ? name : source; }
};

/// What a forward pass reads of the pool: p = values + scale · z, formed as it is read, so that evaluation never writes
/// the pool. Backprop reads with z = nullptr. `flat` stands in for the pool's own trainable values:
/// a scratch copy of a small pool.
struct PoolRead {
  const ParameterPool* pool;
  const Direction* z = nullptr;
  float scale = 0;
  ConstView flat{};  // [count] like FlatParams::values; empty: the pool's

  /// Values of a slot before the perturbation.
  ConstView values(SlotId) const;
};

/// Rows [begin, end) of a weight.
struct RowRange {
  int64_t begin, end;
};

/// A virtual parameter: linear in the pool and fixed after binding. Whoever reads its values (gather, multiply, direct)
/// holds a lease of it (model/weight_lease.h).
class WeightView {
 public:
  virtual ~WeightView() = default;
  virtual Shape shape() const = 0;
  virtual bool is_trainable() const = 0;
  /// w = (S p)[rows].  w [rows, cols] in the pool's dtype.
  virtual void gather(const Context&, const PoolRead&, RowRange rows, TensorView w) const = 0;
  void gather(const Context& ctx, const PoolRead& read, TensorView w) const {
    gather(ctx, read, {0, shape().rank == 2 ? shape()[0] : 1}, w);
  }
  /// y = x wᵀ + beta · y with the bits of gather and gemm, where the view can do it faster;
  /// false, and nothing done, otherwise.
  virtual bool multiply(const Context&, const PoolRead&, ConstView /*x*/, double /*beta*/, TensorView /*y*/) const {
    return false;
  }
  /// grads += Sᵀ dw, in a fixed order and without atomics.
  virtual void scatter_add(const Context&, ConstView dw, ParameterPool&) const = 0;
  /// The weight where it lies, in its stored dtype, when no copy is needed; empty otherwise. Whether it is empty may be
  /// asked without a lease; under the next one the weight may lie elsewhere.
  virtual ConstView direct(const PoolRead&) const { return {}; }
  /// Where a GEMM may accumulate the gradient in place of scatter_add.
  virtual std::optional<TensorView> direct_grad(ParameterPool&) const { return std::nullopt; }
  /// Hash of everything but the values: ranks and checkpoints compare it.
  virtual uint64_t fingerprint() const = 0;

  /// A lease begins and ends; leases nest. A view whose bytes are not in memory at all times brings them for the first
  /// of several and may let them go with the last. @throws UserError when they cannot be read: then no lease has begun
  virtual void acquire() const {}
  virtual void release() const {}
};
using ViewPtr = std::shared_ptr<const WeightView>;

/// A whole slot, in place.
class SliceView final : public WeightView {
 public:
  SliceView(const ParameterPool& pool, SlotId slot, Shape shape)
      : slot_(slot), shape_(shape), trainable_(pool.is_trainable(slot)) {}
  Shape shape() const override { return shape_; }
  bool is_trainable() const override { return trainable_; }
  using WeightView::gather;
  void gather(const Context&, const PoolRead&, RowRange, TensorView w) const override;
  void scatter_add(const Context&, ConstView dw, ParameterPool&) const override;
  ConstView direct(const PoolRead& read) const override {
    return read.z && trainable_ ? ConstView() : read.values(slot_);
  }
  std::optional<TensorView> direct_grad(ParameterPool& pool) const override { return pool.grads(slot_); }
  uint64_t fingerprint() const override;

 private:
  SlotId slot_;
  Shape shape_;
  bool trainable_;
};

/// What a layer reads of the pool for one spec. A linear may have a gain,  y = gain · (x baseᵀ), so that layers which
/// share a base each scale its outputs in their own way.
struct Weight {
  ViewPtr base;
  ViewPtr gain{};  // [out], or null: none
};

/// A low-rank delta:  y += scale · (x Aᵀ) Bt.  a [rank, in], bt [rank, out]; the same for LoRA and MoS.
struct LowRank {
  ViewPtr a, bt;
  float scale = 1;
  float dropout = 0;
  int64_t rank() const { return a->shape()[0]; }
};

/// The deltas that an adapter adds to each weight, by weight number (index of the WeightSpec), in the order in which
/// they are added. A delta whose views are not trainable is frozen: it is read and gets no gradient.
struct AdapterWeights {
  std::vector<std::vector<LowRank>> by_weight;
};

}  // namespace tessera
