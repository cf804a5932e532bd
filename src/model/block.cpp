#include "model/block.h"

#include "kernels/elementwise.h"
#include "model/gates.h"

namespace tessera {
namespace {

/// A half that the block lacks is left out, like one whose gate is shut.
bool runs_attention(const Block& block, const LayerGates& gates) {
  return block.parts.has_attention() && !gates.attention.is_skipped();
}
bool runs_mlp(const Block& block, const LayerGates& gates) { return block.parts.has_mlp() && !gates.mlp.is_skipped(); }

/// y = x wᵀ + bias, then normed where the block has such a norm.
void project(const Pass& pass, const Block& block, LinearWeights w, int norm_weight, ConstView x, TensorView y,
             const LinearSaved& kept, const NormSaved& normed) {
  if (norm_weight == kAbsent) return linear(pass, block.weights, w, x, 0, y, kept);
  linear(pass, block.weights, w, x, 0, normed.input, kept);
  norm(pass, block.weights, norm_weight, block.norm_eps, normed.input, y, normed.inv_rms);
}

/// The gradient of what such a norm read, from scratch; dy itself where there is none.
ConstView norm_input_gradient(const Pass& pass, const Block& block, int norm_weight, const NormSaved& normed,
                              ConstView dy) {
  if (norm_weight == kAbsent) return dy;
  const TensorView dx = pass.rows(dy.cols(), dy.dtype);
  fill(pass.ctx, 0, dx);
  norm_backward(pass, block.weights, norm_weight, normed.input, normed.inv_rms, dy, dx);
  return dx;
}

TensorView mlp_begin(const Pass& pass, const Block& block, ConstView residual, BlockSaved& s) {
  return mlp_begin(pass, block.weights, block.parts, block.norm_eps, residual, s.mlp);
}

/// What q, k and v read.
TensorView attention_input(const Pass& pass, const Block& block, ConstView residual, const AttentionSaved& s) {
  return normed_rows(pass, block.weights, block.parts.input_norm, block.norm_eps, residual, s.inv_rms);
}

/// hidden += gate · (x wᵀ + bias): what attention or the MLP adds. @param part  of a gate: room for that product
void add_part(const Pass& pass, const Block& block, const Gate& gate, LinearWeights w, ConstView x,
              const LinearSaved& kept, TensorView part, TensorView hidden) {
  const bool is_separate = gate.path() == Gate::Path::separate;
  linear(pass, block.weights, w, x, is_separate ? 0 : 1, is_separate ? part : hidden, kept);
  if (is_separate) gate.add(part, hidden);
}

/// hidden += g · (A + M(hidden + A)): block_end where the whole block's part is formed alone.
void add_block_part(const Pass& pass, const Block& block, const Gate& gate, BlockSaved& s, TensorView hidden) {
  const BlockWeights& w = block.parts;
  if (w.has_attention())
    linear(pass, block.weights, {w.o, w.o_bias}, s.attention.attended, 0, s.part, s.attention.o_linear);
  if (w.has_mlp()) {
    convert(pass.ctx, hidden, s.middle);
    if (w.has_attention()) add(pass.ctx, s.part, s.middle);
    const auto scope = pass.ctx.scratch.scope();
    const TensorView activated = mlp_begin(pass, block, s.middle, s);
    linear(pass, block.weights, {w.down, w.down_bias}, activated, w.has_attention() ? 1 : 0, s.part, s.mlp.down_linear);
  }
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

void attention_backward(const Pass& pass, const Block& block, TrainableAttention& attention, BlockSaved& saved,
                        TensorView dhidden, bool need_input) {
  const auto& [weights, w, spec, eps] = block;
  const AttentionSaved& s = saved.attention;
  const auto scope = pass.ctx.scratch.scope();
  const DType dtype = weights.activations();
  const TensorView dnormed = pass.rows(dhidden.cols(), dtype), dq = pass.rows(s.q.cols(), dtype),
                   dk = pass.rows(s.k.cols(), dtype), dv = pass.rows(s.v.cols(), dtype);
  {
    const auto inner = pass.ctx.scratch.scope();
    const TensorView dattended = pass.rows(s.attended.cols(), dtype);
    linear_backward(pass, weights, {w.o, w.o_bias}, s.attended, s.o_linear, dhidden, 0, dattended);
    attention.attend_backward(pass.ctx, spec, pass.batch, {s.q, s.k, s.v, s.attended, s.lse}, dattended, dq, dk, dv);
  }
  const ConstView dq_linear = norm_input_gradient(pass, block, w.q_norm, s.q_norm, dq),
                  dk_linear = norm_input_gradient(pass, block, w.k_norm, s.k_norm, dk);
  const bool need_dnormed = need_input || weights.is_trainable(w.input_norm);
  const TensorView target = need_dnormed ? dnormed : TensorView(),
                   normed = attention_input(pass, block, saved.input, s);
  linear_backward(pass, weights, {w.q, w.q_bias}, normed, s.q_linear, dq_linear, 0, target);
  linear_backward(pass, weights, {w.k, w.k_bias}, normed, s.k_linear, dk_linear, 1, target);
  linear_backward(pass, weights, {w.v, w.v_bias}, normed, s.v_linear, dv, 1, target);
  if (need_dnormed) norm_backward(pass, weights, w.input_norm, saved.input, s.inv_rms, dnormed, dhidden);
}

AttentionSaved allocate_attention(const Pass& pass, const WeightSet& weights, const AttentionSpec& spec,
                                  const std::vector<BlockWeights>& blocks) {
  AttentionSaved s;
  s.q = allocate_output(pass, weights, blocks, &BlockWeights::q);
  if (s.q.empty()) return s;
  s.inv_rms = pass.ctx.scratch.allocate({pass.batch.tokens()}, weights.activations());
  s.k = allocate_output(pass, weights, blocks, &BlockWeights::k);
  s.v = allocate_output(pass, weights, blocks, &BlockWeights::v);
  s.attended = allocate_output(pass, weights, blocks, &BlockWeights::q);
  s.lse = pass.rows(spec.heads, weights.activations());
  s.q_norm = allocate_saved(pass, weights, blocks, &BlockWeights::q, &BlockWeights::q_norm);
  s.k_norm = allocate_saved(pass, weights, blocks, &BlockWeights::k, &BlockWeights::k_norm);
  s.q_linear = allocate_saved(pass, weights, blocks, &BlockWeights::q);
  s.k_linear = allocate_saved(pass, weights, blocks, &BlockWeights::k);
  s.v_linear = allocate_saved(pass, weights, blocks, &BlockWeights::v);
  s.o_linear = allocate_saved(pass, weights, blocks, &BlockWeights::o);
  return s;
}

}  // namespace

BlockSaved allocate_saved(const Pass& pass, const WeightSet& weights, const AttentionSpec& spec,
                          const std::vector<BlockWeights>& blocks) {
  BlockSaved s;
  s.attention = allocate_attention(pass, weights, spec, blocks);
  s.mlp = allocate_mlp(pass, weights, blocks);
  s.input = allocate_output(pass, weights, blocks, &BlockWeights::o);  // both end in the residual
  if (s.input.empty()) s.input = allocate_output(pass, weights, blocks, &BlockWeights::down);
  const int64_t width = s.input.cols();
  s.middle = pass.rows(width, weights.activations());
  const BlockGates::Of gates = gated(pass.batch);
  if (gates != BlockGates::Of::nothing) s.part = pass.rows(width, weights.activations());
  if (gates == BlockGates::Of::sublayers) s.attention_part = pass.rows(width, weights.activations());
  return s;
}

void block_begin(const Pass& pass, const Block& block, ConstView hidden, BlockSaved& saved) {
  const BlockWeights& w = block.parts;
  AttentionSaved& s = saved.attention;
  const auto scope = pass.ctx.scratch.scope();
  const TensorView normed = attention_input(pass, block, hidden, s);
  project(pass, block, {w.q, w.q_bias}, w.q_norm, normed, s.q, s.q_linear, s.q_norm);
  project(pass, block, {w.k, w.k_bias}, w.k_norm, normed, s.k, s.k_linear, s.k_norm);
  linear(pass, block.weights, {w.v, w.v_bias}, normed, 0, s.v, s.v_linear);
}

void block_end(const Pass& pass, const Block& block, BlockSaved& s, bool keep, TensorView hidden) {
  const BlockWeights& w = block.parts;
  const LayerGates gates = layer_gates(pass, block.attention.layer);
  if (gates.block.is_skipped()) return;
  if (gates.block.path() == Gate::Path::separate) return add_block_part(pass, block, gates.block, s, hidden);
  if (runs_attention(block, gates))
    add_part(pass, block, gates.attention, {w.o, w.o_bias}, s.attention.attended, s.attention.o_linear,
             s.attention_part, hidden);
  if (keep) convert(pass.ctx, hidden, s.middle);
  if (runs_mlp(block, gates)) {
    const auto scope = pass.ctx.scratch.scope();
    const TensorView activated = mlp_begin(pass, block, hidden, s);
    add_part(pass, block, gates.mlp, {w.down, w.down_bias}, activated, s.mlp.down_linear, s.part, hidden);
  }
  const bool is_whole = gates.block.exists() || (runs_mlp(block, gates) && gates.mlp.path() == Gate::Path::ordinary);
  if (keep && !s.part.empty() && is_whole) convert(pass.ctx, hidden, s.part);
}

void block_forward(const Pass& pass, const Block& block, AttentionContext& attention, BlockSaved& s, bool keep,
                   TensorView hidden) {
  const auto scope = pass.ctx.scratch.scope();
  const LayerGates gates = layer_gates(pass, block.attention.layer);
  if (gates.block.is_skipped()) return;
  if (keep) convert(pass.ctx, hidden, s.input);
  if (runs_attention(block, gates)) {
    block_begin(pass, block, hidden, s);
    const AttentionSaved& a = s.attention;
    attention.attend(pass.ctx, block.attention, pass.batch, a.q, a.k, a.v, a.attended, a.lse);
  }
  block_end(pass, block, s, keep, hidden);
}

BlockInputs block_inputs(const Pass& pass, const Block& block, const BlockSaved& s) {
  BlockInputs inputs;
  if (block.parts.has_attention()) {
    inputs.attention = attention_input(pass, block, s.input, s.attention);
    inputs.attended = s.attention.attended;
  }
  if (block.parts.has_mlp()) {
    inputs.mlp = normed_rows(pass, block.weights, block.parts.mlp_norm, block.norm_eps, s.middle, s.mlp.inv_rms);
    inputs.activated = mlp_activated(pass, s.mlp);
  }
  return inputs;
}

void block_backward(const Pass& pass, const Block& block, TrainableAttention& attention, BlockSaved& s,
                    TensorView dhidden, bool need_input) {
  const BlockWeights& w = block.parts;
  const LayerGates gates = layer_gates(pass, block.attention.layer);
  through_gate(pass, gates.block, s.part, s.input, dhidden, [&] {
    if (w.has_mlp())
      through_gate(pass, gates.mlp, s.part, s.middle, dhidden,
                   [&] { mlp_backward(pass, block.weights, w, block.norm_eps, s.middle, s.mlp, dhidden); });
    if (!w.has_attention()) return;
    const bool is_separate = gates.attention.path() == Gate::Path::separate;
    through_gate(pass, gates.attention, is_separate ? s.attention_part : s.middle, s.input, dhidden,
                 [&] { attention_backward(pass, block, attention, s, dhidden, need_input); });
  });
}

}  // namespace tessera
