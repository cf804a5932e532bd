#pragma once
// The decoder: explicit forward and backward per layer, no tape. One forward serves training, evaluation and generation.

#include <span>
#include <vector>

#include "kernels/attention.h"
#include "kernels/context.h"
#include "model/bound_adapter.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace tessera {

/// Rows of a batch that read the same numbers: the base weights, and an adapter or none. A group with `values` reads trainable base weights
/// through them, in place of the pass's own reading; frozen weights are still read once for all groups.
struct RowGroup {
  int64_t begin, end;
  BoundAdapter* adapter = nullptr;
  const PoolRead* values = nullptr;
};

/// Tokens of several documents, one behind the other. Non-owning.
struct TokenBatch {
  std::span<const int32_t> ids, positions;
  std::span<const int64_t> draw_index;  // a token's number in the global batch: keys dropout
  std::span<const AttentionSegment> segments;
  std::span<const RowGroup> groups;  // cover all rows, in order
  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
};

/// cos and sin of position · frequency, in the compute dtype.
struct RopeTable {
  Tensor cos, sin;  // [positions, head_dim / 2]
};
RopeTable make_rope_table(const ModelConfig&, int64_t positions, DType compute);

struct AttentionSpec {
  int layer;
  int64_t heads, kv_heads, head_dim;
  double scale;
  const RopeTable* rope;
};

/// The seam of attention: who stores keys and values, and which tokens see which. q and k arrive before RoPE and are turned in place.
class AttentionContext {
 public:
  virtual ~AttentionContext() = default;
  virtual void attend(const Context&, const AttentionSpec&, const TokenBatch&, TensorView q, TensorView k, ConstView v,
                      TensorView out, TensorView lse) = 0;
};

struct BlockSaved;

/// An attention that can be trained through: gradients of q, k (before RoPE) and v. Rows outside every segment get zeros.
class TrainableAttention : public AttentionContext {
 public:
  virtual void attend_backward(const Context&, const AttentionSpec&, const TokenBatch&, const BlockSaved&,
                               ConstView dattended, TensorView dq, TensorView dk, TensorView dv) = 0;
};

/// What a forward pass reads and where a backward pass adds.
struct Pass {
  const Context& ctx;
  const TokenBatch& batch;
  PoolRead read;
  ParameterPool* pool = nullptr;  // gradients; null in evaluation
  uint64_t dropout_seed = 0, step = 0;
  bool training = false;  // dropout is on
};

/// What a block keeps for its backward pass. Views into the arena. Shapes: T tokens, D hidden, I intermediate.
struct BlockSaved {
  TensorView input, inv_rms_1, normed_1;   // [T, D], [T], [T, D]
  TensorView q, k, v, attended, lse;       // after RoPE
  TensorView middle, inv_rms_2, normed_2;  // residual after attention
  TensorView gate, up, activated;          // [T, I]
  std::array<TensorView, 7> low_rank;      // [T, rank] x Aᵀ of each linear; empty without adapter
};

class DecoderModel {
 public:
  /// @param weights      one view per spec of weight_specs(config), in that order
  /// @param max_position positions 0 .. max_position-1 may occur
  /// @param memory       counted: only position 0 may occur, and only in a counting pass
  DecoderModel(const ModelConfig&, std::vector<ViewPtr> weights, int64_t max_position, DType compute = DType::f32,
               Memory memory = Memory::held);

  const ModelConfig& config() const { return config_; }
  const std::vector<WeightSpec>& specs() const { return specs_; }
  const ViewPtr& weight(int index) const { return weights_[index]; }
  DType compute() const { return compute_; }
  int64_t max_position() const { return max_position_; }
  int64_t table_bytes() const;  // of the rotary positions
  int num_layers() const { return static_cast<int>(config_.num_hidden_layers); }
  /// Weight number of linear 0..6 (q, k, v, o, gate, up, down) of a layer.
  int linear_index(int layer, int which) const;

  /// hidden [T, D] <- embeddings.
  void embed(const Pass&, TensorView hidden) const;
  /// hidden <- block(hidden). saved == nullptr keeps nothing; its views must have been allocated by allocate_saved otherwise.
  void block(const Pass&, int layer, AttentionContext&, BlockSaved* saved, TensorView hidden) const;
  BlockSaved allocate_saved(const Pass&) const;
  /// dhidden: gradient of the block's output on entry, of its input on exit (left undefined when `need_input` is false).
  void block_backward(const Pass&, int layer, TrainableAttention&, BlockSaved&, TensorView dhidden,
                      bool need_input) const;
  void embed_backward(const Pass&, ConstView dhidden) const;

  /// Final norm and fused cross-entropy of the given rows of hidden.
  struct Head {
    std::span<const int32_t> rows, labels;  // scored rows of the batch, ascending, and their labels
    TensorView nll;                         // [rows] out
    std::span<int32_t> best;                // arg max, out; may be empty
    TensorView dhidden;                     // [T, D] += ; empty: no gradients
  };
  void head(const Pass&, ConstView hidden, const Head&) const;
  /// logits [rows, vocab] of the given rows.
  void logits(const Pass&, ConstView hidden, std::span<const int32_t> rows, TensorView logits) const;

  /// True when a gradient must reach the embeddings.
  bool trains_embedding() const { return weights_.front()->is_trainable(); }

 private:
  enum Linear { kQ, kK, kV, kO, kGate, kUp, kDown };
  void linear(const Pass&, int index, ConstView x, double beta, TensorView y, TensorView low_rank) const;
  void linear_backward(const Pass&, int index, ConstView x, ConstView low_rank, ConstView dy, double beta,
                       TensorView dx) const;
  void norm_backward(const Pass&, int index, ConstView x, ConstView inv_rms, ConstView dy, TensorView dx) const;
  ConstView read(const Pass& pass, int index) const { return read(pass.ctx, pass.read, index); }
  ConstView read(const Context&, const PoolRead&, int index) const;  // in place, or gathered into scratch
  /// y = x wᵀ + beta · y
  void multiply(const Context&, const PoolRead&, int index, ConstView x, double beta, TensorView y) const;
  template <class F> void for_each_reading(const Pass&, int index, F&&) const;
  void norm(const Pass&, int index, ConstView x, TensorView y, TensorView inv_rms) const;
  void head_rows(const Pass&, const PoolRead&, ConstView hidden, const Head&) const;
  AttentionSpec attention_spec(int layer) const;
  TensorView empty_like(const Pass&, int64_t cols) const;

  ModelConfig config_;
  std::vector<WeightSpec> specs_;
  std::vector<ViewPtr> weights_;
  int64_t max_position_;
  RopeTable rope_;
  DType compute_;
};

}  // namespace tessera
