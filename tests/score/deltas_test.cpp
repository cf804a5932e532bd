// Several low-rank deltas on one weight: together they are one delta whose rank is their sum,
// and frozen ones get no gradient.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/elementwise.h"
#include "score/forward.h"
#include "support/batches.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

/// Numbers that nobody trains.
class FrozenMatrix final : public WeightView {
 public:
  FrozenMatrix(Shape shape, uint32_t seed) : values_(shape, DType::f32) { test::fill_normal(values_, seed, 0.3); }
  Shape shape() const override { return values_.shape(); }
  bool is_trainable() const override { return false; }
  void gather(const Context&, const PoolRead&, RowRange, TensorView) const override { FAIL() << "it lies in place"; }
  void scatter_add(const Context&, ConstView, ParameterPool&) const override { FAIL() << "it is frozen"; }
  ConstView direct(const PoolRead&) const override { return values_.view(); }
  uint64_t fingerprint() const override { return 1; }
  ConstView values() const { return values_.view(); }

 private:
  Tensor values_;
};

constexpr int64_t kTrained = 2, kFrozen = 3;

class Deltas : public testing::TestWithParam<bool> {
 protected:
  /// A LoRA of that rank whose deltas are not scaled.
  std::unique_ptr<Model> load(int64_t rank) {
    Model::Settings settings = test::tiny_settings(folder_.path());
    settings.adapter.method = "lora";
    settings.adapter.rank = rank;
    settings.adapter.alpha = static_cast<double>(rank);
    return std::make_unique<Model>(settings);
  }
  /// Loss of a batch whose rows see this adapter, and the gradients it leaves there.
  double train_step(Model& model, BoundAdapter& adapter) {
    const PackedBatch batch = test::packed_batch();
    const auto scope = own_.ctx.scratch.scope();
    const BatchTokens in(own_.ctx, batch, &adapter);
    const Pass pass{own_.ctx, in.tokens(), {&model.pool()}, &model.pool()};
    PackedAttention attention;
    const DecoderModel& decoder = model.decoder();
    std::vector<BlockSaved> saved(static_cast<size_t>(decoder.num_layers()));
    const Keep keep = GetParam() ? Keep::inputs : Keep::everything;
    const TensorView hidden = decoder.embed(pass);
    decoder.blocks(pass, decoder.all_layers(), attention, hidden, keep, saved);
    const TensorView dhidden = pass.rows(hidden.cols(), decoder.activations());
    fill(own_.ctx, 0, dhidden);
    const RowScores scores = score_hidden(pass, decoder, hidden, in.rows(), in.labels(), dhidden);
    decoder.blocks_backward(pass, decoder.all_layers(), attention, keep, saved, dhidden);
    return sum_up(batch, in.scored(), scores.nll, scores.best)["nll"];
  }
  test::TemporaryFolder folder_;
  test::OwnContext own_;
};

/// rows [begin, end) of `to` <- from
void copy_rows(ConstView from, TensorView to, int64_t begin) {
  std::memcpy(to.row<float>(begin), from.data, static_cast<size_t>(from.bytes()));
}

TEST_P(Deltas, OfOneWeightAddUpAndFrozenOnesGetNoGradient) {
  const auto few = load(kTrained), all = load(kTrained + kFrozen);
  test::fill_all_normal(few->pool(), 5, 0.3);
  AdapterWeights both = few->bound_adapter()->weights();
  for (size_t i = 0; i < both.by_weight.size(); ++i) {
    if (both.by_weight[i].empty()) continue;
    const LowRank& own = both.by_weight[i].front();
    const auto a = std::make_shared<FrozenMatrix>(Shape{kFrozen, own.a->shape()[1]}, 100 + static_cast<uint32_t>(i));
    const auto bt = std::make_shared<FrozenMatrix>(Shape{kFrozen, own.bt->shape()[1]}, 200 + static_cast<uint32_t>(i));
    const auto& one = all->bound_adapter()->deltas(static_cast<int>(i)).front();
    const auto& trained = few->bound_adapter()->deltas(static_cast<int>(i)).front();
    copy_rows(trained.a, TensorView(one.a), 0);
    copy_rows(trained.bt, TensorView(one.bt), 0);
    copy_rows(a->values(), TensorView(one.a), kTrained);
    copy_rows(bt->values(), TensorView(one.bt), kTrained);
    both.by_weight[i].push_back({.a = a, .bt = bt, .scale = 1, .dropout = 0});
  }
  BoundAdapter stacked(both, few->pool());
  stacked.assemble(own_.ctx);
  EXPECT_EQ(stacked.rank(few->decoder().block_weights(1).gate), kTrained + kFrozen);

  few->pool().zero_grads();
  all->pool().zero_grads();
  const double expected = train_step(*all, *all->bound_adapter());
  EXPECT_NEAR(train_step(*few, stacked) / expected, 1, 1e-6);
  for (int i = 0; i < static_cast<int>(both.by_weight.size()); ++i) {
    if (both.by_weight[i].empty()) continue;
    const auto& one = all->bound_adapter()->deltas(i).front();
    const auto found = stacked.deltas(i);
    EXPECT_TRUE(found[1].da.empty() && found[1].dbt.empty());
    for (const auto& [ours, theirs] : {std::pair(found[0].da, one.da), std::pair(found[0].dbt, one.dbt)})
      for (int64_t r = 0; r < kTrained; ++r)
        for (int64_t c = 0; c < ours.cols(); ++c)
          ASSERT_NEAR(ours.row<float>(r)[c], theirs.row<float>(r)[c], 2e-5 * (1 + std::abs(theirs.row<float>(r)[c])));
  }
}

INSTANTIATE_TEST_SUITE_P(Passes, Deltas, testing::Values(false, true),
                         [](const auto& info) { return info.param ? "BlocksRunAgain" : "AllKept"; });

}  // namespace
}  // namespace tessera
