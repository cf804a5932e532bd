// Norms of q and k before RoPE: what attention is given, their gradients, and that groups of rows read their own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/elementwise.h"
#include "support/gradcheck.h"
#include "support/loose_decoder.h"

namespace tessera {
namespace {

using test::LooseDecoder;
using test::LooseOptions;
using test::OwnContext;
using test::QkNorms;
using test::same_bytes;
using test::Trained;

struct Case {
  const char* name;
  LooseOptions options;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class HeadNorms : public testing::TestWithParam<Case> {};

TEST_P(HeadNorms, GradientsAreTheLossesDerivatives) {
  LooseOptions options = GetParam().options;
  options.compute = DType::f64;
  LooseDecoder model(options);
  OwnContext own("reference");
  const RowGroup group{0, model.tokens(), model.adapter.get()};
  const auto loss = [&] { return model.loss(own.ctx, {&group, 1}); };
  for (const Keep keep : {Keep::everything, Keep::inputs}) {
    model.pool.zero_grads();
    EXPECT_NEAR(model.train(own.ctx, {&group, 1}, keep), loss(), 1e-10);
    int norms = 0;
    for (const TrainableSlot& slot : model.pool.trainable().slots) {
      if (slot.name == "model.norm.weight" || slot.name == "lm_head.weight") continue;  // behind the blocks
      norms += slot.name.find("self_attn.q_norm") != std::string::npos;
      EXPECT_LE(test::gradient_error(test::slot_of(model.pool, slot.name).as<double>(),
                                     test::slot_of(model.pool, slot.name, true).as<double>(), loss, 4),
                1e-6)
          << slot.name;
    }
    EXPECT_EQ(norms, options.trained == Trained::everything ? 3 : 0);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Of, HeadNorms,
    testing::Values(
        Case{"EachHead", {.norms = QkNorms::heads}}, Case{"AllHeadsTogether", {.norms = QkNorms::width}},
        Case{"EachHeadWithGainsAndBiases", {.gains = true, .biases = true, .adapter = true, .norms = QkNorms::heads}},
        Case{"FrozenUnderAnAdapter", {.trained = Trained::nothing, .adapter = true, .norms = QkNorms::heads}}),
    [](const auto& info) { return info.param.name; });

/// Attends to nothing and keeps what it was given.
class Recorder final : public AttentionContext {
 public:
  void attend(const Context& ctx, const AttentionSpec&, const TokenBatch&, TensorView q, TensorView k, ConstView,
              TensorView out, TensorView) override {
    q_ = Tensor(q.shape, q.dtype);
    k_ = Tensor(k.shape, k.dtype);
    convert(ctx, q, q_);
    convert(ctx, k, k_);
    fill(ctx, 0, out);
  }
  const Tensor& q() const { return q_; }
  const Tensor& k() const { return k_; }

 private:
  Tensor q_, k_;
};

using Row = std::vector<double>;

/// x / sqrt(mean(x²) + 1e-5) · w, for each piece of x as long as w.
Row normed(const Row& x, ConstView w) {
  Row y(x.size());
  const auto width = static_cast<size_t>(w.shape.count());
  for (size_t begin = 0; begin < x.size(); begin += width) {
    double squares = 0;
    for (size_t i = 0; i < width; ++i) squares += x[begin + i] * x[begin + i];
    const double inv = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-5);
    for (size_t i = 0; i < width; ++i) y[begin + i] = x[begin + i] * inv * element(w, static_cast<int64_t>(i));
  }
  return y;
}

Row projected(const Row& x, ConstView w, ConstView bias) {
  Row y(static_cast<size_t>(w.shape[0]));
  for (int64_t r = 0; r < w.shape[0]; ++r) {
    y[static_cast<size_t>(r)] = element(bias, r);
    for (int64_t c = 0; c < w.shape[1]; ++c)
      y[static_cast<size_t>(r)] += x[static_cast<size_t>(c)] * element(w, r * w.shape[1] + c);
  }
  return y;
}

TEST(QkNorms, GiveAttentionTheFormulasQAndK) {
  for (const QkNorms norms : {QkNorms::heads, QkNorms::width}) {
    LooseDecoder model({.compute = DType::f64, .biases = true, .norms = norms});
    OwnContext own("reference");
    const auto scope = own.ctx.scratch.scope();
    const int64_t width = model.decoder->config().hidden_size, rows = 3;
    const Tensor stream({rows, width}, DType::f64), before({rows, width}, DType::f64);
    test::fill_normal(stream, 4, 1);
    test::fill_normal(before, 4, 1);
    const std::vector<int32_t> ids(rows, 0), positions = {0, 1, 2};
    const AttentionSegment segment{0, rows, 0, rows};
    const RowGroup group{0, rows};
    const TokenBatch batch{ids, positions, {}, {&segment, 1}, {&group, 1}};
    Recorder recorder;
    model.decoder->blocks(Pass{own.ctx, batch, {&model.pool}}, {1, 2}, recorder, stream);
    const BlockWeights& w = model.decoder->block_weights(1);
    const auto values = [&](int weight) { return model.decoder->weight(weight)->direct({&model.pool}); };
    for (int64_t t = 0; t < rows; ++t) {
      const double* x = before.view().row<double>(t);
      const Row input = normed(Row(x, x + width), values(w.input_norm));
      const Row q = normed(projected(input, values(w.q), values(w.q_bias)), values(w.q_norm)),
                k = normed(projected(input, values(w.k), values(w.k_bias)), values(w.k_norm));
      const double *found_q = recorder.q().view().row<double>(t), *found_k = recorder.k().view().row<double>(t);
      for (size_t i = 0; i < q.size(); ++i) ASSERT_NEAR(found_q[i], q[i], 1e-12);
      for (size_t i = 0; i < k.size(); ++i) ASSERT_NEAR(found_k[i], k[i], 1e-12);
    }
  }
}

TEST(QkNorms, AreReadByEachGroupAsItsOwn) {
  LooseDecoder model({.norms = QkNorms::heads});
  expect_groups_read_their_own(model);
}

TEST(QkNorms, AreNormsInPlacesOfTheirOwn) {
  LooseDecoder model({.norms = QkNorms::heads});
  int norms = 0;
  for (const TrainableSlot& slot : model.pool.trainable().slots) {
    if (!slot.name.ends_with("q_norm.weight") && !slot.name.ends_with("k_norm.weight")) continue;
    ++norms;
    EXPECT_FALSE(slot.weight_decay);
    EXPECT_EQ(slot.shape, Shape{model.decoder->config().head_dim});
  }
  EXPECT_EQ(norms, 6);
  for (int layer = 0; layer < 3; ++layer) {  // the family lists them behind o
    const BlockWeights& w = model.decoder->block_weights(layer);
    const int first = 1 + 11 * layer;
    EXPECT_THAT((std::vector{w.input_norm, w.q, w.k, w.v, w.o, w.q_norm, w.k_norm, w.mlp_norm, w.gate, w.up, w.down}),
                testing::ElementsAre(first, first + 1, first + 2, first + 3, first + 4, first + 5, first + 6, first + 7,
                                     first + 8, first + 9, first + 10));
  }
}

TEST(QkNorms, PlanIsThePeak) {
  LooseDecoder model(
      {.size = {.hidden_size = 96, .intermediate_size = 160, .layers = 3, .head_dim = 24}, .norms = QkNorms::heads});
  for (const Keep keep : {Keep::everything, Keep::inputs}) {
    OwnContext real;
    const Compute plan = Compute::counting({}, real.ctx.threads);
    const RowGroup group{0, model.tokens(30)};
    model.train(plan, {&group, 1}, keep);
    model.train(real.ctx, {&group, 1}, keep);
    EXPECT_EQ(plan.peak_bytes(), real.arena.peak_bytes());
  }
}

}  // namespace
}  // namespace tessera
