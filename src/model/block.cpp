#include "model/block.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/swiglu.h"
#include "model/gates.h"
#include "model/norm.h"

namespace tessera {
namespace {

/// The linears of a block: their weight, and what they keep.
constexpr std::pair<int BlockWeights::*, LinearSaved BlockLinears::*> kLinears[] = {
    {&BlockWeights::q, &BlockLinears::q},       {&BlockWeights::k, &BlockLinears::k},
    {&BlockWeights::v, &BlockLinears::v},       {&BlockWeights::o, &BlockLinears::o},
    {&BlockWeights::gate, &BlockLinears::gate}, {&BlockWeights::up, &BlockLinears::up},
    {&BlockWeights::down, &BlockLinears::down}};

/// The widest delta of any group of rows.
int64_t delta_rank(const TokenBatch& batch, int weight) {
  int64_t rank = 0;
  for (const RowGroup& group : batch.groups)
    if (group.adapter) rank = std::max(rank, group.adapter->rank(weight));
  return rank;
}

/// Room for what a linear keeps in the block that keeps the most.
LinearSaved allocate_linear(const Pass& pass, const WeightSet& weights, const std::vector<BlockWeights>& blocks,
                            int BlockWeights::*linear) {
  int64_t rank = 0;
  bool trains_gain = false;
  for (const BlockWeights& block : blocks) {
    rank = std::max(rank, delta_rank(pass.batch, block.*linear));
    const ViewPtr& gain = weights.gain(block.*linear);
    trains_gain = trains_gain || (pass.pool && gain && gain->is_trainable());
  }
  LinearSaved kept;
  if (rank > 0) kept.low_rank = pass.rows(rank, weights.activations());
  if (trains_gain) kept.product = pass.rows(weights.shape(blocks.front().*linear)[0], weights.activations());
  return kept;
}

/// From a residual to what the MLP's last linear reads.
void mlp_begin(const Pass& pass, const Block& block, ConstView residual, BlockSaved& s) {
  const auto& [weights, w, config, attention] = block;
  norm(pass, weights, w.mlp_norm, config.rms_norm_eps, residual, s.normed_2, s.inv_rms_2);
  linear(pass, weights, {w.gate}, s.normed_2, 0, s.gate, s.linears.gate);
  linear(pass, weights, {w.up}, s.normed_2, 0, s.up, s.linears.up);
  swiglu(pass.ctx, s.gate, s.up, s.activated);
}

/// hidden += gate · (x wᵀ): what attention or the MLP adds. @param part  of a gate: room for that product
void add_part(const Pass& pass, const Block& block, const Gate& gate, int weight, ConstView x, const LinearSaved& kept,
              TensorView part, TensorView hidden) {
  const bool is_separate = gate.path() == Gate::Path::separate;
  linear(pass, block.weights, {weight}, x, is_separate ? 0 : 1, is_separate ? part : hidden, kept);
  if (is_separate) gate.add(part, hidden);
}

/// hidden += g · (A + M(hidden + A)): block_end where the whole block's part is formed alone.
void add_block_part(const Pass& pass, const Block& block, const Gate& gate, BlockSaved& s, TensorView hidden) {
  const auto& [weights, w, config, attention] = block;
  linear(pass, weights, {w.o}, s.attended, 0, s.part, s.linears.o);
  convert(pass.ctx, hidden, s.middle);
  add(pass.ctx, s.part, s.middle);
  mlp_begin(pass, block, s.middle, s);
  linear(pass, weights, {w.down}, s.activated, 1, s.part, s.linears.down);
  gate.add(s.part, hidden);
}

/// Backward through a gate: `backward` takes dhidden from the gradient of x + F(x) to that of x, in place.
/// @param part, before  forward's; F(x) is part where it was formed alone, else part − before
template <class F>
void through_gate(const Pass& pass, const Gate& gate, ConstView part, ConstView before, TensorView dhidden,
                  F&& backward) {
  if (!gate.exists()) return backward();
  if (gate.is_skipped()) return;
  const auto scope = pass.ctx.scratch.scope();
  const TensorView dout =
      pass.rows(dhidden.cols(), dhidden.dtype);  // on every path: plans hold for all values of a gate
  const bool is_separate = gate.path() == Gate::Path::separate;
  gate.add_gradient(dhidden, part, is_separate ? ConstView() : before);
  if (!is_separate) return backward();
  convert(pass.ctx, dhidden, dout);
  gate.scale_gradient(dout, dhidden);
  backward();
  gate.add_rest(dout, dhidden);
}

void mlp_backward(const Pass& pass, const Block& block, BlockSaved& s, TensorView dhidden) {
  const auto& [weights, w, config, attention] = block;
  const auto scope = pass.ctx.scratch.scope();
  const DType dtype = weights.activations();
  const TensorView dnormed = pass.rows(config.hidden_size, dtype);
  {
    const auto inner = pass.ctx.scratch.scope();
    const TensorView dactivated = pass.rows(config.intermediate_size, dtype);
    linear_backward(pass, weights, {w.down}, s.activated, s.linears.down, dhidden, 0, dactivated);
    // gate and up have served: their gradients take their place
    swiglu_backward(pass.ctx, s.gate, s.up, dactivated, s.gate, s.up);
    linear_backward(pass, weights, {w.gate}, s.normed_2, s.linears.gate, s.gate, 0, dnormed);
    linear_backward(pass, weights, {w.up}, s.normed_2, s.linears.up, s.up, 1, dnormed);
  }
  norm_backward(pass, weights, w.mlp_norm, s.middle, s.inv_rms_2, dnormed, dhidden);
}

void attention_backward(const Pass& pass, const Block& block, TrainableAttention& attention, BlockSaved& s,
                        TensorView dhidden, bool need_input) {
  const auto& [weights, w, config, spec] = block;
  const auto scope = pass.ctx.scratch.scope();
  const DType dtype = weights.activations();
  const TensorView dnormed = pass.rows(config.hidden_size, dtype), dattended = pass.rows(config.query_width(), dtype);
  linear_backward(pass, weights, {w.o}, s.attended, s.linears.o, dhidden, 0, dattended);
  const TensorView dq = pass.rows(config.query_width(), dtype), dk = pass.rows(config.key_width(), dtype),
                   dv = pass.rows(config.key_width(), dtype);
  attention.attend_backward(pass.ctx, spec, pass.batch, {s.q, s.k, s.v, s.attended, s.lse}, dattended, dq, dk, dv);
  const bool need_dnormed = need_input || weights.is_trainable(w.input_norm);
  const TensorView target = need_dnormed ? dnormed : TensorView();
  linear_backward(pass, weights, {w.q, w.q_bias}, s.normed_1, s.linears.q, dq, 0, target);
  linear_backward(pass, weights, {w.k, w.k_bias}, s.normed_1, s.linears.k, dk, 1, target);
  linear_backward(pass, weights, {w.v, w.v_bias}, s.normed_1, s.linears.v, dv, 1, target);
  if (need_dnormed) norm_backward(pass, weights, w.input_norm, s.input, s.inv_rms_1, dnormed, dhidden);
}

}  // namespace

BlockSaved allocate_saved(const Pass& pass, const WeightSet& weights, const ModelConfig& config,
                          const std::vector<BlockWeights>& blocks) {
  const DType dtype = weights.activations();
  const int64_t d = config.hidden_size, q = config.query_width(), kv = config.key_width(), i = config.intermediate_size;
  BlockSaved s;
  s.input = pass.rows(d, dtype);
  s.inv_rms_1 = pass.ctx.scratch.allocate({pass.batch.tokens()}, dtype);
  s.normed_1 = pass.rows(d, dtype);
  s.q = pass.rows(q, dtype);
  s.k = pass.rows(kv, dtype);
  s.v = pass.rows(kv, dtype);
  s.attended = pass.rows(q, dtype);
  s.lse = pass.rows(config.num_attention_heads, dtype);
  s.middle = pass.rows(d, dtype);
  s.inv_rms_2 = pass.ctx.scratch.allocate({pass.batch.tokens()}, dtype);
  s.normed_2 = pass.rows(d, dtype);
  s.gate = pass.rows(i, dtype);
  s.up = pass.rows(i, dtype);
  s.activated = pass.rows(i, dtype);
  for (const auto& [linear, kept] : kLinears) s.linears.*kept = allocate_linear(pass, weights, blocks, linear);
  const BlockGates::Of gates = gated(pass.batch);
  if (gates != BlockGates::Of::nothing) s.part = pass.rows(d, dtype);
  if (gates == BlockGates::Of::sublayers) s.attention_part = pass.rows(d, dtype);
  return s;
}

void block_begin(const Pass& pass, const Block& block, ConstView hidden, BlockSaved& s) {
  const auto& [weights, w, config, attention] = block;
  norm(pass, weights, w.input_norm, config.rms_norm_eps, hidden, s.normed_1, s.inv_rms_1);
  linear(pass, weights, {w.q, w.q_bias}, s.normed_1, 0, s.q, s.linears.q);
  linear(pass, weights, {w.k, w.k_bias}, s.normed_1, 0, s.k, s.linears.k);
  linear(pass, weights, {w.v, w.v_bias}, s.normed_1, 0, s.v, s.linears.v);
}

void block_end(const Pass& pass, const Block& block, BlockSaved& s, bool keep, TensorView hidden) {
  const BlockWeights& w = block.parts;
  const LayerGates gates = layer_gates(pass, block.attention.layer);
  if (gates.block.is_skipped()) return;
  if (gates.block.path() == Gate::Path::separate) return add_block_part(pass, block, gates.block, s, hidden);
  if (!gates.attention.is_skipped())
    add_part(pass, block, gates.attention, w.o, s.attended, s.linears.o, s.attention_part, hidden);
  if (keep) convert(pass.ctx, hidden, s.middle);
  if (gates.mlp.is_skipped()) return;
  mlp_begin(pass, block, hidden, s);
  add_part(pass, block, gates.mlp, w.down, s.activated, s.linears.down, s.part, hidden);
  const bool is_whole = gates.block.exists() || gates.mlp.path() == Gate::Path::ordinary;
  if (keep && !s.part.empty() && is_whole) convert(pass.ctx, hidden, s.part);
}

void block_forward(const Pass& pass, const Block& block, AttentionContext& attention, BlockSaved& s, bool keep,
                   TensorView hidden) {
  const auto scope = pass.ctx.scratch.scope();
  const LayerGates gates = layer_gates(pass, block.attention.layer);
  if (gates.block.is_skipped()) return;
  if (keep) convert(pass.ctx, hidden, s.input);
  if (!gates.attention.is_skipped()) {
    block_begin(pass, block, hidden, s);
    attention.attend(pass.ctx, block.attention, pass.batch, s.q, s.k, s.v, s.attended, s.lse);
  }
  block_end(pass, block, s, keep, hidden);
}

void block_backward(const Pass& pass, const Block& block, TrainableAttention& attention, BlockSaved& s,
                    TensorView dhidden, bool need_input) {
  const LayerGates gates = layer_gates(pass, block.attention.layer);
  through_gate(pass, gates.block, s.part, s.input, dhidden, [&] {
    through_gate(pass, gates.mlp, s.part, s.middle, dhidden, [&] { mlp_backward(pass, block, s, dhidden); });
    const bool is_separate = gates.attention.path() == Gate::Path::separate;
    through_gate(pass, gates.attention, is_separate ? s.attention_part : s.middle, s.input, dhidden,
                 [&] { attention_backward(pass, block, attention, s, dhidden, need_input); });
  });
}

}  // namespace tessera
