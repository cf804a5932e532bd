#pragma once
// The decoder: embeddings, blocks, head. One forward pass serves training, evaluation and generation.

#include <vector>

#include "model/block.h"
#include "model/head.h"

namespace tessera {

/// What a forward pass keeps of each block for the backward pass.
enum class Keep { nothing, inputs, everything };

class DecoderModel {
 public:
  /// @param specs        what the model is made of; in a run those of its family, weight_specs(config)
  /// @param weights      one for each spec, in that order
  /// @param max_position positions 0 .. max_position-1 may occur
  /// @param activations  dtype of all that passes compute, and of the rotary tables
  /// @param memory       counted: only position 0 may occur, and only in a counting pass
  DecoderModel(const ModelConfig&, std::vector<WeightSpec> specs, std::vector<Weight> weights, int64_t max_position,
               DType activations = DType::f32, Memory memory = Memory::held, Device device = {});

  const ModelConfig& config() const { return config_; }
  const std::vector<WeightSpec>& specs() const { return weights_.specs(); }
  const ViewPtr& weight(int index) const { return weights_.view(index); }
  const ViewPtr& gain(int index) const { return weights_.gain(index); }  // null: none
  /// The numbers of a layer's weights.
  const BlockWeights& block_weights(int layer) const { return parts_.blocks[static_cast<size_t>(layer)]; }
  DType activations() const { return weights_.activations(); }
  int64_t max_position() const { return max_position_; }
  int64_t table_bytes() const;  // of the rotary positions
  int num_layers() const { return static_cast<int>(parts_.blocks.size()); }
  LayerRange all_layers() const { return {0, num_layers()}; }

  /// @return hidden [T, D], the embeddings of the batch, from the pass's scratch: open a scope around the call
  TensorView embed(const Pass&) const;
  /// hidden <- the blocks of these layers, one after another.
  /// @param saved  [num_layers] out, with Keep::nothing not read: what is kept, from the pass's scratch
  void blocks(const Pass&, LayerRange, AttentionContext&, TensorView hidden, Keep = Keep::nothing,
              std::span<BlockSaved> saved = {}) const;
  /// What the linears of a layer read that `blocks` ran with Keep::everything.
  BlockInputs inputs_of(const Pass&, int layer, const BlockSaved&) const;
  /// dhidden: gradient of the last block's output on entry, of the first one's input on exit (left undefined when
  /// nobody reads it: of layer 0 under frozen embeddings).
  /// @param saved  as `blocks` left it. With Keep::inputs each block is run again from its input first
  void blocks_backward(const Pass&, LayerRange, TrainableAttention&, Keep, std::span<BlockSaved> saved,
                       TensorView dhidden) const;
  void embed_backward(const Pass&, ConstView dhidden) const;
  /// Embeddings and every block, keeping nothing for a backward pass. @return hidden, as `embed`
  TensorView forward(const Pass&, AttentionContext&) const;

  /// The weights of the decoder's end, which who reads them leases.
  HeadPart head_part() const { return {weights_, parts_, config_.rms_norm_eps}; }
  WeightLease lease_head(const Pass&) const;
  /// Final norm and fused cross-entropy of the given rows of hidden.
  void head(const Pass&, ConstView hidden, const HeadArgs&) const;
  /// logits [rows, vocab] of the given rows.
  void logits(const Pass&, ConstView hidden, IndexArray<int32_t> rows, TensorView logits) const;

 private:
  AttentionSpec attention_spec(int layer) const;
  Block block(int layer) const;
  BlockSaved room_for_block(const Pass&) const;
  void embed_rows(const Pass&, const PoolRead&, int64_t begin, int64_t end, TensorView hidden) const;

  ModelConfig config_;
  WeightSet weights_;
  DecoderParts parts_;
  int64_t max_position_;
  RopeTable rope_;
};

}  // namespace tessera
