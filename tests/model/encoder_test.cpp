// Blocks are not the decoder's alone: an encoder of two layers and a norm, whose tokens all see each other, is made of
// Block and WeightSet, without positions, embeddings and head. It is compared with plain loops and differentiated.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/device/memory.h"
#include "kernels/elementwise.h"
#include "model/block.h"
#include "model/sharing/base.h"
#include "support/gradcheck.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

constexpr int kLayers = 2;
constexpr int64_t kWidth = 12, kIntermediate = 10, kHeads = 4, kKvHeads = 2, kHeadDim = 3;
constexpr double kEps = 1e-6;

/// Every token of a segment sees every other. Without RoPE q and k are used as they come.
class WholeSegment final : public TrainableAttention {
 public:
  void attend(const Context&, const AttentionSpec& spec, const TokenBatch& batch, TensorView q, TensorView k,
              ConstView v, TensorView out, TensorView) override {
    std::ranges::fill(out.as<double>(), 0.0);
    for_each_weight(spec, batch, q, k, [&](int64_t i, int64_t j, int64_t qc, int64_t kc, double p, auto) {
      for (int64_t d = 0; d < spec.head_dim; ++d) out.row<double>(i)[qc + d] += p * v.row<double>(j)[kc + d];
    });
  }
  void attend_backward(const Context&, const AttentionSpec& spec, const TokenBatch& batch, const Attended& a,
                       ConstView dout, TensorView dq, TensorView dk, TensorView dv) override {
    for (const TensorView& view : {dq, dk, dv}) std::ranges::fill(view.as<double>(), 0.0);
    for_each_weight(spec, batch, a.q, a.k, [&](int64_t i, int64_t j, int64_t qc, int64_t kc, double p, auto) {
      double dp = 0;  // the gradient of p less its mean over the row, which is <dout, out>
      for (int64_t d = 0; d < spec.head_dim; ++d) {
        const double g = dout.row<double>(i)[qc + d];
        dp += g * (a.v.row<double>(j)[kc + d] - a.out.row<double>(i)[qc + d]);
        dv.row<double>(j)[kc + d] += p * g;
      }
      for (int64_t d = 0; d < spec.head_dim; ++d) {
        dq.row<double>(i)[qc + d] += p * dp * spec.scale * a.k.row<double>(j)[kc + d];
        dk.row<double>(j)[kc + d] += p * dp * spec.scale * a.q.row<double>(i)[qc + d];
      }
    });
  }

 private:
  /// Calls f(query, key, first column of q's head, of k's head, softmax weight, head).
  template <class F>
  static void for_each_weight(const AttentionSpec& spec, const TokenBatch& batch, ConstView q, ConstView k, F&& f) {
    for (const AttentionSegment& s : batch.segments.host())
      for (int64_t h = 0; h < spec.heads; ++h)
        for (int64_t i = s.q_begin; i < s.q_end; ++i) {
          const int64_t qc = h * spec.head_dim, kc = h / (spec.heads / spec.kv_heads) * spec.head_dim;
          const auto exponential = [&](int64_t j) {
            double score = 0;
            for (int64_t d = 0; d < spec.head_dim; ++d) score += q.row<double>(i)[qc + d] * k.row<double>(j)[kc + d];
            return std::exp(spec.scale * score);
          };
          double sum = 0;
          for (int64_t j = s.k_begin; j < s.k_end; ++j) sum += exponential(j);
          for (int64_t j = s.k_begin; j < s.k_end; ++j) f(i, j, qc, kc, exponential(j) / sum, h);
        }
  }
};

std::vector<WeightSpec> encoder_specs() {
  std::vector<WeightSpec> specs;
  const auto add = [&](int layer, const std::string& name, Role role, Part part, Shape shape) {
    specs.push_back({.name = std::to_string(layer) + "." + name,
                     .type = name,
                     .layer = layer,
                     .role = role,
                     .part = part,
                     .shape = shape,
                     .init = {Init::Kind::normal, 0.5, {}},
                     .storage = std::to_string(layer) + "." + name});
  };
  for (int layer = 0; layer < kLayers; ++layer) {
    add(layer, "input_norm", Role::norm, Part::input_norm, {kWidth});
    add(layer, "q", Role::linear, Part::q, {kHeads * kHeadDim, kWidth});
    add(layer, "k", Role::linear, Part::k, {kKvHeads * kHeadDim, kWidth});
    add(layer, "v", Role::linear, Part::v, {kKvHeads * kHeadDim, kWidth});
    add(layer, "o", Role::linear, Part::o, {kWidth, kHeads * kHeadDim});
    add(layer, "mlp_norm", Role::norm, Part::mlp_norm, {kWidth});
    add(layer, "gate", Role::linear, Part::gate, {kIntermediate, kWidth});
    add(layer, "up", Role::linear, Part::up, {kIntermediate, kWidth});
    add(layer, "down", Role::linear, Part::down, {kWidth, kIntermediate});
  }
  add(-1, "final_norm", Role::norm, Part::final_norm, {kWidth});
  return specs;
}

class Encoder {
 public:
  Encoder()
      : weights_(encoder_specs(), make_sharing({}, "")->bind(encoder_specs(), pool, {.trainable = true}), DType::f64),
        blocks_(block_parts(weights_.specs())) {
    pool.allocate(3);
  }

  /// y = norm(blocks(x)). @param dx  when given: dy on entry, the gradient of x on exit; the weights' are added
  void run(const Context& ctx, const Tensor& x, const std::vector<AttentionSegment>& segments, Tensor& y,
           TensorView dx = {}) {
    const auto scope = ctx.scratch.scope();
    const std::vector<int32_t> ids(static_cast<size_t>(x.shape()[0]), 0);
    const RowGroup group{0, x.shape()[0]};
    const TokenBatch batch{ids, ids, {}, segments, {&group, 1}};
    const Pass pass{ctx, batch, {&pool}, &pool};
    const WeightLease lease = weights_.lease(pass, LayerRange{0, kLayers});
    WholeSegment attention;
    std::vector<BlockSaved> saved;
    const TensorView hidden = pass.rows(kWidth, DType::f64), inv_rms = ctx.scratch.allocate({x.shape()[0]}, DType::f64);
    convert(ctx, x.view(), hidden);
    for (int layer = 0; layer < kLayers; ++layer) {
      saved.push_back(allocate_saved(pass, weights_, spec(layer), blocks_));
      block_forward(pass, block(layer), attention, saved.back(), true, hidden);
    }
    const auto final_norm = static_cast<int>(weights_.specs().size()) - 1;
    norm(pass, weights_, final_norm, kEps, hidden, y, inv_rms);
    if (dx.empty()) return;
    const TensorView dhidden = pass.rows(kWidth, DType::f64);
    fill(ctx, 0, dhidden);
    norm_backward(pass, weights_, final_norm, hidden, inv_rms, dx, dhidden);
    for (int layer = kLayers - 1; layer >= 0; --layer)
      block_backward(pass, block(layer), attention, saved[static_cast<size_t>(layer)], dhidden, true);
    convert(ctx, dhidden, dx);
  }

  ParameterPool pool{DType::f64};

 private:
  static AttentionSpec spec(int layer) {
    return {layer, kHeads, kKvHeads, kHeadDim, 1 / std::sqrt(static_cast<double>(kHeadDim)), nullptr};
  }
  Block block(int layer) const { return {weights_, blocks_[static_cast<size_t>(layer)], spec(layer), kEps}; }

  WeightSet weights_;
  std::vector<BlockWeights> blocks_;
};

// --- The same in plain loops.

using Row = std::vector<double>;
using Rows = std::vector<Row>;

Rows normed(const Rows& rows, ConstView w) {
  Rows result = rows;
  for (Row& row : result) {
    double squares = 0;
    for (const double value : row) squares += value * value;
    const double rms = std::sqrt(squares / static_cast<double>(row.size()) + kEps);
    for (size_t i = 0; i < row.size(); ++i) row[i] *= element(w, static_cast<int64_t>(i)) / rms;
  }
  return result;
}

Rows product(const Rows& rows, ConstView w) {
  Rows result;
  for (const Row& row : rows) {
    Row& out = result.emplace_back(static_cast<size_t>(w.shape[0]), 0.0);
    for (size_t r = 0; r < out.size(); ++r)
      for (size_t c = 0; c < row.size(); ++c) out[r] += row[c] * element(w, static_cast<int64_t>(r * row.size() + c));
  }
  return result;
}

void add(const Rows& more, Rows& rows) {
  for (size_t t = 0; t < rows.size(); ++t)
    for (size_t i = 0; i < rows[t].size(); ++i) rows[t][i] += more[t][i];
}

Rows attended(const Rows& q, const Rows& k, const Rows& v, const std::vector<AttentionSegment>& segments) {
  Rows out(q.size(), Row(q[0].size(), 0.0));
  for (size_t t = 0; t < q.size(); ++t)
    for (const AttentionSegment& s : segments) {
      if (static_cast<int64_t>(t) < s.q_begin || static_cast<int64_t>(t) >= s.q_end) continue;
      for (size_t h = 0; h < kHeads; ++h) {
        const size_t qc = h * kHeadDim, kc = h / 2 * kHeadDim;
        Row p;
        double sum = 0;
        for (int64_t j = s.k_begin; j < s.k_end; ++j) {
          double score = 0;
          for (size_t d = 0; d < kHeadDim; ++d) score += q[t][qc + d] * k[static_cast<size_t>(j)][kc + d];
          sum += p.emplace_back(std::exp(score / std::sqrt(static_cast<double>(kHeadDim))));
        }
        for (size_t j = 0; j < p.size(); ++j)
          for (size_t d = 0; d < kHeadDim; ++d)
            out[t][qc + d] += p[j] / sum * v[static_cast<size_t>(s.k_begin) + j][kc + d];
      }
    }
  return out;
}

Rows oracle(ParameterPool& pool, Rows x, const std::vector<AttentionSegment>& segments) {
  const auto w = [&](int layer, const std::string& name) {
    return test::slot_of(pool, std::to_string(layer) + "." + name);
  };
  for (int layer = 0; layer < kLayers; ++layer) {
    const Rows a = normed(x, w(layer, "input_norm"));
    const Rows heads =
        attended(product(a, w(layer, "q")), product(a, w(layer, "k")), product(a, w(layer, "v")), segments);
    add(product(heads, w(layer, "o")), x);
    const Rows m = normed(x, w(layer, "mlp_norm"));
    Rows gate = product(m, w(layer, "gate"));
    const Rows up = product(m, w(layer, "up"));
    for (size_t t = 0; t < gate.size(); ++t)
      for (size_t i = 0; i < gate[t].size(); ++i) gate[t][i] *= up[t][i] / (1 + std::exp(-gate[t][i]));
    add(product(gate, w(layer, "down")), x);
  }
  return normed(x, w(-1, "final_norm"));
}

// Two texts of unequal length and a row of padding.
const std::vector<AttentionSegment> kSegments = {{0, 4, 0, 4}, {4, 9, 4, 9}};
constexpr int64_t kRows = 10;

TEST(Encoder, IsThePlainLoopsResult) {
  Encoder encoder;
  test::OwnContext own("reference");
  const Tensor x({kRows, kWidth}, DType::f64);
  test::fill_normal(x, 8, 1);
  Tensor y({kRows, kWidth}, DType::f64);
  encoder.run(own.ctx, x, kSegments, y);
  Rows rows;
  for (int64_t t = 0; t < kRows; ++t) rows.emplace_back(x.view().row<double>(t), x.view().row<double>(t) + kWidth);
  const Rows expected = oracle(encoder.pool, rows, kSegments);
  for (int64_t t = 0; t < kRows; ++t)
    for (int64_t i = 0; i < kWidth; ++i)
      ASSERT_NEAR(y.view().row<double>(t)[i], expected[static_cast<size_t>(t)][static_cast<size_t>(i)], 1e-11);
}

TEST(Encoder, LetsATokenSeeThoseBehindItAndNoOtherText) {
  Encoder encoder;
  test::OwnContext own("reference");
  const Tensor x({kRows, kWidth}, DType::f64);
  test::fill_normal(x, 8, 1);
  Tensor before({kRows, kWidth}, DType::f64), after({kRows, kWidth}, DType::f64);
  encoder.run(own.ctx, x, kSegments, before);
  x.view().row<double>(8)[0] += 0.5;
  encoder.run(own.ctx, x, kSegments, after);
  for (int64_t t = 0; t < kRows; ++t)
    EXPECT_EQ(test::same_bytes(before.view().slice_rows(t, t + 1), after.view().slice_rows(t, t + 1)), t < 4 || t == 9)
        << "row " << t;
}

TEST(Encoder, GradientsAreTheLossesDerivatives) {
  Encoder encoder;
  test::OwnContext own("reference");
  const Tensor x({kRows, kWidth}, DType::f64), dx({kRows, kWidth}, DType::f64), r({kRows, kWidth}, DType::f64);
  test::fill_normal(x, 8, 1);
  test::fill_normal(r, 9, 1);
  test::fill_normal(dx, 9, 1);
  Tensor y({kRows, kWidth}, DType::f64);
  const auto loss = [&] {
    encoder.run(own.ctx, x, kSegments, y);
    double sum = 0;
    for (size_t i = 0; i < kRows * kWidth; ++i) sum += y.as<double>()[i] * r.as<double>()[i];
    return sum;
  };
  encoder.run(own.ctx, x, kSegments, y, dx);
  EXPECT_LE(test::gradient_error(x.as<double>(), dx.as<double>(), loss), 1e-6);
  for (const TrainableSlot& slot : encoder.pool.trainable().slots)
    EXPECT_LE(test::gradient_error(test::slot_of(encoder.pool, slot.name).as<double>(),
                                   test::slot_of(encoder.pool, slot.name, true).as<double>(), loss, 3),
              1e-6)
        << slot.name;
}

}  // namespace
}  // namespace tessera
