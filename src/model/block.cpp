#include "model/block.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/swiglu.h"
#include "model/linear.h"
#include "model/norm.h"

namespace tessera {
namespace {

/// The linears of a block: their weight, and where x Aᵀ of their delta is kept.
constexpr std::pair<int BlockWeights::*, TensorView BlockLowRank::*> kLinears[] = {
    {&BlockWeights::q, &BlockLowRank::q},       {&BlockWeights::k, &BlockLowRank::k},
    {&BlockWeights::v, &BlockLowRank::v},       {&BlockWeights::o, &BlockLowRank::o},
    {&BlockWeights::gate, &BlockLowRank::gate}, {&BlockWeights::up, &BlockLowRank::up},
    {&BlockWeights::down, &BlockLowRank::down}};

/// The widest delta of any group of rows.
int64_t delta_rank(const TokenBatch& batch, int weight) {
  int64_t rank = 0;
  for (const RowGroup& group : batch.groups)
    if (group.adapter) rank = std::max(rank, group.adapter->rank(weight));
  return rank;
}

}  // namespace

BlockSaved allocate_saved(const Pass& pass, const WeightSet& weights, const ModelConfig& config,
                          const std::vector<BlockWeights>& blocks) {
  const DType dtype = weights.compute();
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
  for (const auto& [weight, kept] : kLinears) {
    int64_t rank = 0;
    for (const BlockWeights& block : blocks) rank = std::max(rank, delta_rank(pass.batch, block.*weight));
    if (rank > 0) s.low_rank.*kept = pass.rows(rank, dtype);
  }
  return s;
}

void block_begin(const Pass& pass, const Block& block, ConstView hidden, BlockSaved& s) {
  const auto& [weights, w, config, attention] = block;
  norm(pass, weights, w.input_norm, config.rms_norm_eps, hidden, s.normed_1, s.inv_rms_1);
  linear(pass, weights, w.q, s.normed_1, 0, s.q, s.low_rank.q);
  linear(pass, weights, w.k, s.normed_1, 0, s.k, s.low_rank.k);
  linear(pass, weights, w.v, s.normed_1, 0, s.v, s.low_rank.v);
}

void block_end(const Pass& pass, const Block& block, BlockSaved& s, bool keep, TensorView hidden) {
  const auto& [weights, w, config, attention] = block;
  linear(pass, weights, w.o, s.attended, 1, hidden, s.low_rank.o);
  if (keep) convert(pass.ctx, hidden, s.middle);
  norm(pass, weights, w.mlp_norm, config.rms_norm_eps, hidden, s.normed_2, s.inv_rms_2);
  linear(pass, weights, w.gate, s.normed_2, 0, s.gate, s.low_rank.gate);
  linear(pass, weights, w.up, s.normed_2, 0, s.up, s.low_rank.up);
  swiglu(pass.ctx, s.gate, s.up, s.activated);
  linear(pass, weights, w.down, s.activated, 1, hidden, s.low_rank.down);
}

void block_forward(const Pass& pass, const Block& block, AttentionContext& attention, BlockSaved& s, bool keep,
                   TensorView hidden) {
  const auto scope = pass.ctx.scratch.scope();
  if (keep) convert(pass.ctx, hidden, s.input);
  block_begin(pass, block, hidden, s);
  attention.attend(pass.ctx, block.attention, pass.batch, s.q, s.k, s.v, s.attended, s.lse);
  block_end(pass, block, s, keep, hidden);
}

void block_backward(const Pass& pass, const Block& block, TrainableAttention& attention, BlockSaved& s,
                    TensorView dhidden, bool need_input) {
  const auto& [weights, w, config, spec] = block;
  const Context& ctx = pass.ctx;
  const auto scope = ctx.scratch.scope();
  const DType dtype = weights.compute();
  const auto back = [&, &all = weights](int weight, ConstView x, ConstView low_rank, ConstView dy, double beta,
                                        TensorView dx) {
    linear_backward(pass, all, weight, x, low_rank, dy, beta, dx);
  };

  const TensorView dnormed = pass.rows(config.hidden_size, dtype);
  {
    const auto mlp = ctx.scratch.scope();
    const TensorView dactivated = pass.rows(config.intermediate_size, dtype);
    back(w.down, s.activated, s.low_rank.down, dhidden, 0, dactivated);
    // gate and up have served: their gradients take their place
    swiglu_backward(ctx, s.gate, s.up, dactivated, s.gate, s.up);
    back(w.gate, s.normed_2, s.low_rank.gate, s.gate, 0, dnormed);
    back(w.up, s.normed_2, s.low_rank.up, s.up, 1, dnormed);
  }
  norm_backward(pass, weights, w.mlp_norm, s.middle, s.inv_rms_2, dnormed, dhidden);

  const TensorView dattended = pass.rows(config.query_width(), dtype);
  back(w.o, s.attended, s.low_rank.o, dhidden, 0, dattended);
  const TensorView dq = pass.rows(config.query_width(), dtype), dk = pass.rows(config.key_width(), dtype),
                   dv = pass.rows(config.key_width(), dtype);
  attention.attend_backward(ctx, spec, pass.batch, {s.q, s.k, s.v, s.attended, s.lse}, dattended, dq, dk, dv);
  const bool need_dnormed = need_input || weights.is_trainable(w.input_norm);
  const TensorView target = need_dnormed ? dnormed : TensorView();
  back(w.q, s.normed_1, s.low_rank.q, dq, 0, target);
  back(w.k, s.normed_1, s.low_rank.k, dk, 1, target);
  back(w.v, s.normed_1, s.low_rank.v, dv, 1, target);
  if (need_dnormed) norm_backward(pass, weights, w.input_norm, s.input, s.inv_rms_1, dnormed, dhidden);
}

}  // namespace tessera
