// Weights whose bytes are in memory only while they are leased: passes over them give the plain bits and lease no more
// than a layer at a time.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/leased_view.h"
#include "support/loose_decoder.h"

namespace tessera {
namespace {

using test::LeaseLog;
using test::LooseDecoder;
using test::LooseOptions;
using test::OwnContext;
using test::QkNorms;
using test::same_bytes;
using test::Trained;

constexpr int kLayers = 3;

class Leases : public testing::TestWithParam<Trained> {
 protected:
  LooseOptions options(bool is_leased) {
    LooseOptions options{.trained = GetParam(), .gains = true, .biases = true, .adapter = true};
    options.size.layers = kLayers;
    options.norms = QkNorms::heads;
    if (is_leased) options.wrap = test::leased(log_);
    return options;
  }
  /// Views of one layer: 14 weights, 7 gains, A and B of 7 deltas.
  static constexpr int kViewsOfALayer = 14 + 7 + 2 * 7;

  /// The layers in the order in which their leases began, and -1 for what is outside blocks.
  std::vector<int> begun(const LooseDecoder& model) const {
    std::vector<int> layers;
    for (const int weight : log_.begun) {
      const int layer = model.decoder->specs()[static_cast<size_t>(weight)].layer;
      if (layers.empty() || layers.back() != layer) layers.push_back(layer);
    }
    return layers;
  }
  LeaseLog log_;
  OwnContext own_;
};

TEST_P(Leases, OfALayerAtATimeGiveThePlainBitsForwardAndBackward) {
  LooseDecoder plain(options(false)), leased(options(true));
  const RowGroup of_plain{0, plain.tokens(), plain.adapter.get()};
  const RowGroup of_leased{0, leased.tokens(), leased.adapter.get()};
  const Tensor expected = plain.hidden(own_.ctx, {&of_plain, 1});
  EXPECT_TRUE(same_bytes(leased.hidden(own_.ctx, {&of_leased, 1}).view(), expected.view()));
  EXPECT_THAT(begun(leased), testing::ElementsAre(-1, 0, 1, 2));
  for (const Keep keep : {Keep::everything, Keep::inputs}) {
    plain.pool.zero_grads();
    leased.pool.zero_grads();
    log_.begun.clear();
    EXPECT_EQ(leased.train(own_.ctx, {&of_leased, 1}, keep), plain.train(own_.ctx, {&of_plain, 1}, keep));
    EXPECT_TRUE(same_bytes(leased.pool.trainable().grads, plain.pool.trainable().grads));
    EXPECT_THAT(begun(leased), testing::ElementsAre(-1, 0, 1, 2, 1, 0)) << "layer 2 stays for its backward pass or not";
  }
  EXPECT_EQ(log_.held, 0);
  EXPECT_EQ(log_.most_held, kViewsOfALayer);
}

TEST_P(Leases, CoverTheHead) {
  LooseDecoder plain(options(false)), leased(options(true));
  const std::vector<int32_t> rows = {0, 2, 3}, labels = {4, 1, 5};
  const auto scored = [&](LooseDecoder& model, bool backward) {
    const auto scope = own_.ctx.scratch.scope();
    const RowGroup group{0, 4, model.adapter.get()};
    const TokenBatch batch{rows, rows, {}, {}, {&group, 1}};
    const Pass pass{own_.ctx, batch, {&model.pool}, &model.pool};
    const int64_t width = model.decoder->config().hidden_size, vocabulary = model.decoder->config().vocab_size;
    const Tensor stream({4, width}, DType::f32), dhidden({4, width}, DType::f32), nll({3}, DType::f32);
    test::fill_normal(stream, 6, 1);
    Tensor logits({3, vocabulary}, DType::f32);
    model.decoder->logits(pass, stream.view(), rows, logits);
    model.decoder->head(
        pass, stream.view(),
        {.rows = rows, .labels = labels, .nll = nll, .best = {}, .dhidden = backward ? dhidden.view() : TensorView()});
    std::vector<float> all;
    for (const TensorView& out : {logits.view(), nll.view(), dhidden.view()})
      all.insert(all.end(), out.as<float>().begin(), out.as<float>().end());
    return all;
  };
  for (const bool backward : {false, true}) EXPECT_EQ(scored(leased, backward), scored(plain, backward));
  EXPECT_TRUE(same_bytes(leased.pool.trainable().grads, plain.pool.trainable().grads));
  EXPECT_EQ(log_.held, 0);
}

TEST_P(Leases, AreGivenBackWhenBytesCannotBeRead) {
  LooseDecoder leased(options(true));
  const RowGroup group{0, leased.tokens(), leased.adapter.get()};
  log_.fails_at = leased.decoder->block_weights(1).o;
  EXPECT_THROW(leased.hidden(own_.ctx, {&group, 1}), UserError);
  EXPECT_EQ(log_.held, 0);
  log_.fails_at = -1;
  leased.hidden(own_.ctx, {&group, 1});
  EXPECT_EQ(log_.held, 0);
}

TEST_P(Leases, AreNotTakenByAPlan) {
  LooseDecoder leased(options(true));
  const RowGroup group{0, leased.tokens(), leased.adapter.get()};
  const Compute plan = Compute::counting({}, own_.ctx.threads);
  leased.train(plan, {&group, 1}, Keep::inputs);
  EXPECT_THAT(log_.begun, testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Of, Leases, testing::Values(Trained::nothing, Trained::everything), [](const auto& info) {
  return info.param == Trained::nothing ? "FrozenWeights" : "TrainedWeights";
});

TEST(LeasedView, ShowsNaNsToThoseWhoHoldNone) {
  LeaseLog log;
  ParameterPool pool;
  const SlotId slot = pool.reserve("w", {.shape = {3}, .init = {Init::Kind::ones, 0, {}}});
  pool.allocate(1);
  const ViewPtr view = test::leased(log)(std::make_shared<SliceView>(pool, slot, Shape{3}), pool, 0);
  ConstView kept;
  {
    const ViewLease lease(*view);
    kept = view->direct({&pool});
    EXPECT_THAT(kept.as<float>(), testing::Each(1.0f));
  }
  EXPECT_THAT(kept.as<float>(), testing::Each(testing::IsNan()));
  EXPECT_THAT(view->direct({&pool}).as<float>(), testing::Each(testing::IsNan()));
}

}  // namespace
}  // namespace tessera
