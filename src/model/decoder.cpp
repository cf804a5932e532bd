#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "kernels/cross_entropy.h"
#include "kernels/dropout.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"

namespace tessera {
namespace {

constexpr int kWeightsPerLayer = 9;                     // norm, q, k, v, o, norm, gate, up, down
constexpr int kLinearOffset[] = {1, 2, 3, 4, 6, 7, 8};  // of q, k, v, o, gate, up, down inside a layer
constexpr int kNorm1 = 0, kNorm2 = 5;

/// Llama-3's rescaling: wavelengths beyond original/low are stretched by factor, below original/high kept, between blended.
double scaled_frequency(const RopeConfig& rope, double frequency) {
  if (rope.factor == 1) return frequency;
  const double wavelength = 2 * std::numbers::pi / frequency;
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  if (wavelength < original / rope.high_freq_factor) return frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  const double blend = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - blend) * frequency / rope.factor + blend * frequency;
}

void zero(TensorView view) {
  TS_CHECK(view.is_contiguous(), "zero() of a strided view");
  std::memset(view.mutable_data(), 0, static_cast<size_t>(view.bytes()));
}

/// Rows of a head weight [vocab, dim] that are made at once: 4 MB.
int64_t tile_rows(const Shape& weight) {
  return std::clamp<int64_t>((int64_t{4} << 20) / (weight[1] * 4) / 64 * 64, std::min<int64_t>(64, weight[0]),
                             weight[0]);
}

}  // namespace

RopeTable make_rope_table(const ModelConfig& config, int64_t positions, DType compute) {
  const int64_t half = config.head_dim / 2;
  RopeTable table{Tensor({positions, half}, compute), Tensor({positions, half}, compute)};
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim);
    const double frequency = scaled_frequency(config.rope, std::pow(config.rope.theta, -exponent));
    for (int64_t p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(p) * frequency;
      if (compute == DType::f64) {
        table.cos.view().row<double>(p)[i] = std::cos(angle);
        table.sin.view().row<double>(p)[i] = std::sin(angle);
      } else {
        table.cos.view().row<float>(p)[i] = static_cast<float>(std::cos(angle));
        table.sin.view().row<float>(p)[i] = static_cast<float>(std::sin(angle));
      }
    }
  }
  return table;
}

DecoderModel::DecoderModel(const ModelConfig& config, std::vector<ViewPtr> weights, int64_t max_position, DType compute,
                           Memory memory)
    : config_(config),
      specs_(weight_specs(config)),
      weights_(std::move(weights)),
      max_position_(max_position),
      rope_(make_rope_table(config, memory == Memory::counted ? std::min<int64_t>(1, max_position) : max_position,
                            compute)),
      compute_(compute) {
  TS_CHECK(weights_.size() == specs_.size(), "{} weights for {} specs", weights_.size(), specs_.size());
  for (size_t i = 0; i < specs_.size(); ++i)
    TS_CHECK(weights_[i]->shape() == specs_[i].shape, "{} is {}, expected {}", specs_[i].name,
             weights_[i]->shape().text(), specs_[i].shape.text());
}

int64_t DecoderModel::table_bytes() const { return max_position_ * config_.head_dim * size_of(compute_); }

int DecoderModel::linear_index(int layer, int which) const {
  return 1 + layer * kWeightsPerLayer + kLinearOffset[which];
}

AttentionSpec DecoderModel::attention_spec(int layer) const {
  return {layer,
          config_.num_attention_heads,
          config_.num_key_value_heads,
          config_.head_dim,
          1.0 / std::sqrt(static_cast<double>(config_.head_dim)),
          &rope_};
}

TensorView DecoderModel::empty_like(const Pass& pass, int64_t cols) const {
  return pass.ctx.scratch.allocate({pass.batch.tokens(), cols}, compute_);
}

ConstView DecoderModel::read(const Context& ctx, const PoolRead& read, int index) const {
  if (const ConstView direct = weights_[index]->direct(read); !direct.empty()) return direct;
  const TensorView copy = ctx.scratch.allocate(specs_[index].shape, compute_);
  weights_[index]->gather(ctx, read, copy);
  return copy;
}

/// Calls f(read, begin, end) for runs of rows that read a weight alike: all rows at once when it is frozen.
template <class F> void DecoderModel::for_each_reading(const Pass& pass, int index, F&& f) const {
  const auto& groups = pass.batch.groups;
  const auto values = [&](size_t g) { return groups[g].values ? *groups[g].values : pass.read; };
  if (!weights_[index]->is_trainable() || groups.empty()) return f(pass.read, int64_t{0}, pass.batch.tokens());
  for (size_t g = 0; g < groups.size();) {
    size_t next = g + 1;
    while (next < groups.size() && groups[next].values == groups[g].values) ++next;
    f(values(g), groups[g].begin, groups[next - 1].end);
    g = next;
  }
}

void DecoderModel::embed(const Pass& pass, TensorView hidden) const {
  const Context& ctx = pass.ctx;
  for_each_reading(pass, 0, [&](const PoolRead& values, int64_t begin, int64_t end) {
    const auto ids = pass.batch.ids.subspan(begin, end - begin);
    if (const ConstView table = weights_[0]->direct(values); !table.empty())
      return embedding(ctx, table, ids, hidden.slice_rows(begin, end));
    if (ctx.scratch.is_counting()) return;
    for (int64_t t = begin; t < end; ++t) {  // a row at a time: the table is large and few of its rows are read
      const int64_t id = pass.batch.ids[t];
      TS_CHECK(id >= 0 && id < specs_[0].shape[0], "token {} is outside the vocabulary", id);
      weights_[0]->gather(ctx, values, {id, id + 1}, hidden.slice_rows(t, t + 1));
    }
  });
}

void DecoderModel::norm(const Pass& pass, int index, ConstView x, TensorView y, TensorView inv_rms) const {
  for_each_reading(pass, index, [&](const PoolRead& values, int64_t begin, int64_t end) {
    const auto scope = pass.ctx.scratch.scope();
    rms_norm(pass.ctx, x.slice_rows(begin, end), read(pass.ctx, values, index), config_.rms_norm_eps,
             y.slice_rows(begin, end), inv_rms.slice_rows(begin, end));
  });
}

void DecoderModel::embed_backward(const Pass& pass, ConstView dhidden) const {
  if (!trains_embedding()) return;
  const auto scope = pass.ctx.scratch.scope();
  if (auto grad = weights_[0]->direct_grad(*pass.pool))
    return embedding_backward(pass.ctx, pass.batch.ids, dhidden, *grad);
  const TensorView dw = pass.ctx.scratch.allocate(specs_[0].shape, compute_);
  if (!pass.ctx.scratch.is_counting()) zero(dw);
  embedding_backward(pass.ctx, pass.batch.ids, dhidden, dw);
  weights_[0]->scatter_add(pass.ctx, dw, *pass.pool);
}

void DecoderModel::multiply(const Context& ctx, const PoolRead& values, int index, ConstView x, double beta,
                            TensorView y) const {
  const auto scope = ctx.scratch.scope();
  if (weights_[index]->multiply(ctx, values, x, beta, y)) return;
  gemm(ctx, {.a = x, .b = read(ctx, values, index), .b_transpose = Transpose::yes, .c = y, .beta = beta});
}

// y = x Wᵀ + beta y, then for each group of rows with an adapter  y += scale · (dropout(x) Aᵀ) Bt.
void DecoderModel::linear(const Pass& pass, int index, ConstView x, double beta, TensorView y,
                          TensorView low_rank) const {
  const Context& ctx = pass.ctx;
  for_each_reading(pass, index, [&](const PoolRead& values, int64_t begin, int64_t end) {
    multiply(ctx, values, index, x.slice_rows(begin, end), beta, y.slice_rows(begin, end));
  });
  for (const RowGroup& group : pass.batch.groups) {
    const auto* delta = group.adapter ? group.adapter->find(index) : nullptr;
    if (!delta) continue;
    const auto scope = ctx.scratch.scope();
    const int64_t rows = group.end - group.begin, rank = delta->a.shape[0];
    ConstView rows_x = x.slice_rows(group.begin, group.end);
    if (pass.training && delta->dropout > 0) {
      const TensorView dropped = ctx.scratch.allocate({rows, x.cols()}, compute_);
      dropout(ctx, rows_x,
              {pass.dropout_seed, pass.step, static_cast<uint32_t>(index), delta->dropout,
               pass.batch.draw_index.subspan(group.begin, rows)},
              dropped, Write::assign);
      rows_x = dropped;
    }
    TensorView u = low_rank.empty() ? ctx.scratch.allocate({rows, rank}, compute_)
                                    : low_rank.slice_rows(group.begin, group.end).slice_cols(0, rank);
    gemm(ctx, {.a = rows_x, .b = delta->a, .b_transpose = Transpose::yes, .c = u});
    gemm(ctx, {.a = u, .b = delta->bt, .c = y.slice_rows(group.begin, group.end), .alpha = delta->scale, .beta = 1});
  }
}

// dx = beta dx + dy W + dropoutᵀ(dU A),  dW += dyᵀ x,  dBt += scale Uᵀ dy,  dU = scale dy Btᵀ,  dA += dUᵀ dropout(x).
void DecoderModel::linear_backward(const Pass& pass, int index, ConstView x, ConstView low_rank, ConstView dy,
                                   double beta, TensorView dx) const {
  const Context& ctx = pass.ctx;
  {
    const auto scope = ctx.scratch.scope();
    if (!dx.empty()) gemm(ctx, {.a = dy, .b = read(pass, index), .c = dx, .beta = beta});
    if (weights_[index]->is_trainable()) {
      if (auto grad = weights_[index]->direct_grad(*pass.pool)) {
        gemm(ctx, {.a = dy, .a_transpose = Transpose::yes, .b = x, .c = *grad, .beta = 1});
      } else {
        const TensorView dw = ctx.scratch.allocate(specs_[index].shape, compute_);
        gemm(ctx, {.a = dy, .a_transpose = Transpose::yes, .b = x, .c = dw});
        weights_[index]->scatter_add(ctx, dw, *pass.pool);
      }
    }
  }
  for (const RowGroup& group : pass.batch.groups) {
    const auto* delta = group.adapter ? group.adapter->find(index) : nullptr;
    if (!delta) continue;
    const auto scope = ctx.scratch.scope();
    const int64_t rows = group.end - group.begin, rank = delta->a.shape[0];
    const ConstView rows_dy = dy.slice_rows(group.begin, group.end),
                    u = low_rank.slice_rows(group.begin, group.end).slice_cols(0, rank);
    const bool drop = pass.training && delta->dropout > 0;
    const DropoutKey key{pass.dropout_seed, pass.step, static_cast<uint32_t>(index), delta->dropout,
                         pass.batch.draw_index.subspan(group.begin, rows)};
    ConstView rows_x = x.slice_rows(group.begin, group.end);
    TensorView dropped;
    if (drop) {
      dropped = ctx.scratch.allocate({rows, x.cols()}, compute_);
      dropout(ctx, rows_x, key, dropped, Write::assign);
      rows_x = dropped;
    }
    const TensorView du = ctx.scratch.allocate({rows, rank}, compute_);
    gemm(ctx, {.a = u, .a_transpose = Transpose::yes, .b = rows_dy, .c = delta->dbt, .alpha = delta->scale, .beta = 1});
    gemm(ctx, {.a = rows_dy, .b = delta->bt, .b_transpose = Transpose::yes, .c = du, .alpha = delta->scale});
    gemm(ctx, {.a = du, .a_transpose = Transpose::yes, .b = rows_x, .c = delta->da, .beta = 1});
    if (dx.empty()) continue;
    const TensorView rows_dx = dx.slice_rows(group.begin, group.end);
    if (!drop) {
      gemm(ctx, {.a = du, .b = delta->a, .c = rows_dx, .beta = 1});
    } else {  // the dropped copy is no longer needed: its buffer takes dU A
      gemm(ctx, {.a = du, .b = delta->a, .c = dropped});
      dropout(ctx, dropped, key, rows_dx, Write::accumulate);
    }
  }
}

void DecoderModel::norm_backward(const Pass& pass, int index, ConstView x, ConstView inv_rms, ConstView dy,
                                 TensorView dx) const {
  const auto scope = pass.ctx.scratch.scope();
  TensorView dweight;
  if (weights_[index]->is_trainable()) {
    const auto grad = weights_[index]->direct_grad(*pass.pool);
    TS_CHECK(grad, "norm weights are stored as they are");
    dweight = *grad;
  }
  rms_norm_backward(pass.ctx, x, read(pass, index), inv_rms, dy, dx, dweight);
}

BlockSaved DecoderModel::allocate_saved(const Pass& pass) const {
  const int64_t d = config_.hidden_size, q = config_.query_width(), kv = config_.key_width(),
                i = config_.intermediate_size;
  BlockSaved s;
  s.input = empty_like(pass, d);
  s.inv_rms_1 = pass.ctx.scratch.allocate({pass.batch.tokens()}, compute_);
  s.normed_1 = empty_like(pass, d);
  s.q = empty_like(pass, q);
  s.k = empty_like(pass, kv);
  s.v = empty_like(pass, kv);
  s.attended = empty_like(pass, q);
  s.lse = empty_like(pass, config_.num_attention_heads);
  s.middle = empty_like(pass, d);
  s.inv_rms_2 = pass.ctx.scratch.allocate({pass.batch.tokens()}, compute_);
  s.normed_2 = empty_like(pass, d);
  s.gate = empty_like(pass, i);
  s.up = empty_like(pass, i);
  s.activated = empty_like(pass, i);
  for (int which = 0; which < 7; ++which) {
    int64_t rank = 0;  // the same in every layer; layer 0 stands for all
    for (const RowGroup& group : pass.batch.groups)
      for (int layer = 0; group.adapter && layer < num_layers(); ++layer)
        rank = std::max(rank, group.adapter->rank(linear_index(layer, which)));
    if (rank > 0) s.low_rank[which] = empty_like(pass, rank);
  }
  return s;
}

void DecoderModel::block(const Pass& pass, int layer, AttentionContext& attention, BlockSaved* saved,
                         TensorView hidden) const {
  const Context& ctx = pass.ctx;
  const auto scope = ctx.scratch.scope();
  BlockSaved local;
  const bool keep = saved != nullptr;
  if (!keep) {
    local = allocate_saved(pass);  // scratch of this block, released at its end
    saved = &local;
  }
  BlockSaved& s = *saved;
  const int first = 1 + layer * kWeightsPerLayer;
  const auto u = [&](Linear which) { return s.low_rank[which]; };

  if (keep) convert(ctx, hidden, s.input);
  norm(pass, first + kNorm1, hidden, s.normed_1, s.inv_rms_1);
  linear(pass, linear_index(layer, kQ), s.normed_1, 0, s.q, u(kQ));
  linear(pass, linear_index(layer, kK), s.normed_1, 0, s.k, u(kK));
  linear(pass, linear_index(layer, kV), s.normed_1, 0, s.v, u(kV));
  attention.attend(ctx, attention_spec(layer), pass.batch, s.q, s.k, s.v, s.attended, s.lse);
  linear(pass, linear_index(layer, kO), s.attended, 1, hidden, u(kO));

  if (keep) convert(ctx, hidden, s.middle);
  norm(pass, first + kNorm2, hidden, s.normed_2, s.inv_rms_2);
  linear(pass, linear_index(layer, kGate), s.normed_2, 0, s.gate, u(kGate));
  linear(pass, linear_index(layer, kUp), s.normed_2, 0, s.up, u(kUp));
  swiglu(ctx, s.gate, s.up, s.activated);
  linear(pass, linear_index(layer, kDown), s.activated, 1, hidden, u(kDown));
}

void DecoderModel::block_backward(const Pass& pass, int layer, TrainableAttention& attention, BlockSaved& s,
                                  TensorView dhidden, bool need_input) const {
  const Context& ctx = pass.ctx;
  const auto scope = ctx.scratch.scope();
  const int first = 1 + layer * kWeightsPerLayer;
  const auto u = [&](Linear which) { return s.low_rank[which]; };

  const TensorView dnormed = empty_like(pass, config_.hidden_size);
  {
    const auto mlp = ctx.scratch.scope();
    const TensorView dactivated = empty_like(pass, config_.intermediate_size);
    linear_backward(pass, linear_index(layer, kDown), s.activated, u(kDown), dhidden, 0, dactivated);
    swiglu_backward(ctx, s.gate, s.up, dactivated, s.gate,
                    s.up);  // gate and up have served: their gradients take their place
    linear_backward(pass, linear_index(layer, kGate), s.normed_2, u(kGate), s.gate, 0, dnormed);
    linear_backward(pass, linear_index(layer, kUp), s.normed_2, u(kUp), s.up, 1, dnormed);
  }
  norm_backward(pass, first + kNorm2, s.middle, s.inv_rms_2, dnormed, dhidden);

  const TensorView dattended = empty_like(pass, config_.query_width());
  linear_backward(pass, linear_index(layer, kO), s.attended, u(kO), dhidden, 0, dattended);
  const TensorView dq = empty_like(pass, config_.query_width()), dk = empty_like(pass, config_.key_width()),
                   dv = empty_like(pass, config_.key_width());
  attention.attend_backward(ctx, attention_spec(layer), pass.batch, s, dattended, dq, dk, dv);
  const bool need_dnormed = need_input || weights_[first + kNorm1]->is_trainable();
  const TensorView target = need_dnormed ? dnormed : TensorView();
  linear_backward(pass, linear_index(layer, kQ), s.normed_1, u(kQ), dq, 0, target);
  linear_backward(pass, linear_index(layer, kK), s.normed_1, u(kK), dk, 1, target);
  linear_backward(pass, linear_index(layer, kV), s.normed_1, u(kV), dv, 1, target);
  if (need_dnormed) norm_backward(pass, first + kNorm1, s.input, s.inv_rms_1, dnormed, dhidden);
}

void DecoderModel::head(const Pass& pass, ConstView hidden, const Head& head) const {
  const int norm_index = static_cast<int>(specs_.size()) - 2, head_index = norm_index + 1;
  const int leading = weights_[norm_index]->is_trainable() ? norm_index : head_index;
  for_each_reading(pass, leading, [&](const PoolRead& values, int64_t begin, int64_t end) {
    const auto first = std::lower_bound(head.rows.begin(), head.rows.end(), begin) - head.rows.begin();
    const auto count = std::lower_bound(head.rows.begin(), head.rows.end(), end) - head.rows.begin() - first;
    Head part = head;
    part.rows = head.rows.subspan(first, count);
    part.labels = head.labels.subspan(first, count);
    part.nll = head.nll.slice_rows(first, first + count);
    if (!head.best.empty()) part.best = head.best.subspan(first, count);
    head_rows(pass, values, hidden, part);
  });
}

void DecoderModel::head_rows(const Pass& pass, const PoolRead& values, ConstView hidden, const Head& head) const {
  const Context& ctx = pass.ctx;
  const auto scope = ctx.scratch.scope();
  const auto rows = static_cast<int64_t>(head.rows.size());
  if (rows == 0) return;
  const int norm_index = static_cast<int>(specs_.size()) - 2, head_index = norm_index + 1;
  const bool backward = !head.dhidden.empty();
  const TensorView picked = ctx.scratch.allocate({rows, config_.hidden_size}, compute_),
                   normed = ctx.scratch.allocate({rows, config_.hidden_size}, compute_);
  const TensorView inv_rms = ctx.scratch.allocate({rows}, compute_);
  embedding(ctx, hidden, head.rows, picked);  // a row gather
  rms_norm(ctx, picked, read(ctx, values, norm_index), config_.rms_norm_eps, normed, inv_rms);
  const ConstView direct = weights_[head_index]->direct(values);
  CrossEntropyArgs args{.hidden = normed,
                        .weight = direct,
                        .labels = head.labels,
                        .nll = head.nll,
                        .best = head.best,
                        .dhidden = {},
                        .dweight = {}};
  if (direct.empty() && !backward) {
    args.vocab = specs_[head_index].shape[0];
    args.chunk = std::min(cross_entropy_chunk(rows, args.vocab), tile_rows(specs_[head_index].shape));
    args.weight_rows = [&](int64_t begin, int64_t end) -> ConstView {
      const TensorView tile = ctx.scratch.allocate({end - begin, config_.hidden_size}, compute_);
      weights_[head_index]->gather(ctx, values, {begin, end}, tile);
      return tile;
    };
  } else if (direct.empty()) {
    args.weight = read(ctx, values, head_index);
  }
  if (!backward) return cross_entropy(ctx, args);

  args.dhidden = ctx.scratch.allocate({rows, config_.hidden_size}, compute_);
  const WeightView& head_view = *weights_[head_index];
  const auto grad = head_view.is_trainable() ? head_view.direct_grad(*pass.pool) : std::nullopt;
  if (grad)
    args.dweight = *grad;
  else if (head_view.is_trainable()) {
    args.dweight = ctx.scratch.allocate(specs_[head_index].shape, compute_);
    if (!ctx.scratch.is_counting()) zero(args.dweight);
  }
  cross_entropy(ctx, args);
  if (!args.dweight.empty() && !grad) head_view.scatter_add(ctx, args.dweight, *pass.pool);
  const TensorView dpicked = ctx.scratch.allocate({rows, config_.hidden_size}, compute_);
  if (!ctx.scratch.is_counting()) zero(dpicked);
  norm_backward(pass, norm_index, picked, inv_rms, args.dhidden, dpicked);
  embedding_backward(ctx, head.rows, dpicked, head.dhidden);  // a row scatter
}

void DecoderModel::logits(const Pass& pass, ConstView hidden, std::span<const int32_t> rows, TensorView logits) const {
  const Context& ctx = pass.ctx;
  const auto scope = ctx.scratch.scope();
  const int norm_index = static_cast<int>(specs_.size()) - 2;
  const TensorView picked = ctx.scratch.allocate({static_cast<int64_t>(rows.size()), config_.hidden_size}, compute_);
  embedding(ctx, hidden, rows, picked);
  rms_norm(ctx, picked, read(pass, norm_index), config_.rms_norm_eps, picked, {});
  multiply(ctx, pass.read, norm_index + 1, picked, 0, logits);
}

}  // namespace tessera
