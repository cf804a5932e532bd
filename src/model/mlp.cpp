#include "model/mlp.h"

#include "kernels/swiglu.h"

namespace tessera {
namespace {

/// gate and up have served: their gradients take their place.
void activate_backward(const Context& ctx, const MlpSaved& s, ConstView dactivated) {
  swiglu_backward(ctx, s.gate, s.up, dactivated, s.gate, s.up);
}

}  // namespace

MlpSaved allocate_mlp(const Pass& pass, const WeightSet& weights, const std::vector<BlockWeights>& blocks) {
  MlpSaved s;
  s.gate = allocate_output(pass, weights, blocks, &BlockWeights::gate);
  if (s.gate.empty()) return s;
  s.up = allocate_output(pass, weights, blocks, &BlockWeights::up);
  s.inv_rms = pass.ctx.scratch.allocate({pass.batch.tokens()}, weights.activations());
  s.gate_linear = allocate_saved(pass, weights, blocks, &BlockWeights::gate);
  s.up_linear = allocate_saved(pass, weights, blocks, &BlockWeights::up);
  s.down_linear = allocate_saved(pass, weights, blocks, &BlockWeights::down);
  return s;
}

TensorView mlp_begin(const Pass& pass, const WeightSet& weights, const BlockWeights& w, double eps, ConstView residual,
                     MlpSaved& s) {
  {
    const auto scope = pass.ctx.scratch.scope();
    const TensorView normed = normed_rows(pass, weights, w.mlp_norm, eps, residual, s.inv_rms);
    linear(pass, weights, {w.gate, w.gate_bias}, normed, 0, s.gate, s.gate_linear);
    linear(pass, weights, {w.up, w.up_bias}, normed, 0, s.up, s.up_linear);
  }
  return mlp_activated(pass, s);
}

TensorView mlp_activated(const Pass& pass, const MlpSaved& s) {
  const TensorView activated = pass.rows(s.up.cols(), s.up.dtype);
  swiglu(pass.ctx, s.gate, s.up, activated);
  return activated;
}

void mlp_backward(const Pass& pass, const WeightSet& weights, const BlockWeights& w, double eps, ConstView residual,
                  MlpSaved& s, TensorView dhidden) {
  const auto scope = pass.ctx.scratch.scope();
  const TensorView dnormed = pass.rows(dhidden.cols(), weights.activations());
  {
    const auto inner = pass.ctx.scratch.scope();
    const TensorView dactivated = pass.rows(s.up.cols(), weights.activations());
    {
      const auto again = pass.ctx.scratch.scope();
      linear_backward(pass, weights, {w.down, w.down_bias}, mlp_activated(pass, s), s.down_linear, dhidden, 0,
                      dactivated);
    }
    activate_backward(pass.ctx, s, dactivated);
  }
  {
    const auto again = pass.ctx.scratch.scope();
    const TensorView normed = normed_rows(pass, weights, w.mlp_norm, eps, residual, s.inv_rms);
    linear_backward(pass, weights, {w.gate, w.gate_bias}, normed, s.gate_linear, s.gate, 0, dnormed);
    linear_backward(pass, weights, {w.up, w.up_bias}, normed, s.up_linear, s.up, 1, dnormed);
  }
  norm_backward(pass, weights, w.mlp_norm, residual, s.inv_rms, dnormed, dhidden);
}

}  // namespace tessera
