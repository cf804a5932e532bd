// Input moments: what the linears of each block read, by channel, of the model without what was removed.

#include "compress/moments.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/stages_bench.h"
#include "core/device/memory.h"
#include "score/forward.h"
#include "support/folds.h"
#include "support/thread_ranks.h"

namespace tessera {
namespace {

constexpr int64_t kWidth = 16;
using Sums = std::vector<double>;

class Moments : public test::StagesBench {
 protected:
  Moments() { data_ = std::make_unique<PackedDataset>(test::token_data(20, 5), 12, 1); }  // two places a row are empty

  /// Output i is input i, as far as there are inputs.
  void set_identity(int number) {
    clear(number);
    for (int64_t i = 0; i < kWidth; ++i) at(number, i, i) = 1;
  }
  /// x_0 .. x_L of a batch, on the host.
  std::vector<Tensor> states(const PackedBatch& batch) {
    const auto scope = own_.ctx.scratch.scope();
    const BatchTokens in(own_.ctx, batch, nullptr);
    const Pass pass{own_.ctx, in.tokens(), {&model_.pool()}};
    PackedAttention attention;
    std::vector<Tensor> all;
    const TensorView hidden = model_.decoder().embed(pass);
    for (int layer = 0;; ++layer) {
      copy(hidden, all.emplace_back(Shape{batch.tokens(), kWidth}, DType::f32));
      if (layer == model_.decoder().num_layers()) return all;
      model_.decoder().blocks(pass, {layer, layer + 1}, attention, hidden);
    }
  }
  /// Adds what `value(states, token, channel)` is squared, over the calibration rows and the tokens of documents.
  template <class Value> Sums sums(Value value) {
    Sums all(kWidth, 0.0);
    for (int64_t place = 0; place < fold_.calibration_rows; ++place) {
      const int64_t row = data_->shuffled_row(place);
      const PackedBatch batch = data_->batch({&row, 1}, place);
      const std::vector<Tensor> x = states(batch);
      for (const TokenRange& document : batch.documents)
        for (int64_t t = document.begin; t < document.end; ++t)
          for (int64_t c = 0; c < kWidth; ++c) all[static_cast<size_t>(c)] += std::pow(value(x, t, c), 2);
    }
    return all;
  }
  /// Behind a norm whose gains are ones.
  static double normed(const Tensor& x, int64_t token, int64_t channel) {
    double square = 0;
    for (int64_t c = 0; c < kWidth; ++c) square += std::pow(element(x, kWidth * token + c), 2);
    return element(x, kWidth * token + channel) / std::sqrt(square / kWidth + 1e-5);
  }
  static double added(const Tensor& before, const Tensor& after, int64_t token, int64_t channel) {
    return element(after, kWidth * token + channel) - element(before, kWidth * token + channel);
  }
  static void expect_near(const Sums& found, const Sums& expected) {
    for (size_t c = 0; c < expected.size(); ++c) EXPECT_NEAR(found[c], expected[c], 1e-4 * expected[c]) << c;
  }
  FoldPlan plan(const std::vector<int64_t>& removed, const std::vector<RemovedHalf>& halves = {}) {
    FoldPlan all = test::fold_plan({6, removed, {}, {}});
    all.removed_halves = halves;
    return all;
  }
};

TEST_F(Moments, AreSumsOfSquaresOfWhatEachLinearReads) {
  set_identity(block(2).o);  // block 2 adds what o reads
  clear(block(2).down);
  clear(block(3).o);
  set_identity(block(3).down);  // block 3 adds the first channels of what down reads
  const CalibrationMoments found = calibration_moments(inputs(), plan({}));
  ASSERT_EQ(found.blocks.size(), 6u);
  EXPECT_EQ(found.tokens, 4 * 10);
  using States = const std::vector<Tensor>&;
  for (const size_t l : {0, 2, 5})
    expect_near(found.blocks[l].attention, sums([&](States x, int64_t t, int64_t c) { return normed(x[l], t, c); }));
  expect_near(found.blocks[2].o, sums([](States x, int64_t t, int64_t c) { return added(x[2], x[3], t, c); }));
  expect_near(found.blocks[2].mlp, sums([](States x, int64_t t, int64_t c) { return normed(x[3], t, c); }));
  expect_near(found.blocks[3].mlp, sums([](States x, int64_t t, int64_t c) { return normed(x[3], t, c); }));
  ASSERT_EQ(found.blocks[3].down.size(), 20u);
  expect_near(found.blocks[3].down, sums([](States x, int64_t t, int64_t c) { return added(x[3], x[4], t, c); }));
}

TEST_F(Moments, AreOfTheModelWithoutWhatWasRemoved) {
  const FoldPlan cut = plan({1, 4}, {{2, BlockHalf::attention}, {3, BlockHalf::mlp}});
  const CalibrationMoments found = calibration_moments(inputs(), cut), whole = calibration_moments(inputs(), plan({}));
  for (const int l : {1, 4}) clear(block(l).o), clear(block(l).down);
  clear(block(2).o);
  clear(block(3).down);
  const CalibrationMoments expected = calibration_moments(inputs(), plan({}));
  for (const size_t l : {0, 2, 3, 5}) {
    if (l != 2) {
      EXPECT_EQ(found.blocks[l].attention, expected.blocks[l].attention) << l;
    }
    if (l != 3) {
      EXPECT_EQ(found.blocks[l].down, expected.blocks[l].down) << l;
    }
  }
  EXPECT_NE(found.blocks[5].down, whole.blocks[5].down);
  for (const size_t l : {1, 4}) EXPECT_EQ(found.blocks[l].o, Sums(kWidth, 1.0)) << "nothing is read";
  EXPECT_EQ(found.blocks[2].attention, Sums(kWidth, 1.0));
  const auto blocks = fold_blocks(model_, cut, found.blocks);
  EXPECT_TRUE(blocks[1].linears.empty());
  ASSERT_EQ(blocks[2].linears.size(), 3u);
  EXPECT_EQ(blocks[2].linears.back().type, "mlp.down_proj");
  EXPECT_EQ(blocks[3].linears.size(), 4u);
}

TEST_F(Moments, HaveTheSameBitsForAnyNumberOfRanks) {
  fold_.calibration_rows = 7;
  const CalibrationMoments one = calibration_moments(inputs(), plan({1}));
  for (const int ranks : {2, 3})
    test::on_thread_ranks(ranks, [&](Communicator& world) {
      const test::TemporaryFolder folder;
      const test::OwnContext own;
      Model model(test::tiny_settings(folder.path(), {.layers = 6, .initializer_range = 0.3}));
      const CalibrationMoments found = calibration_moments(inputs(world, model, own.ctx), plan({1}));
      EXPECT_EQ(found.tokens, one.tokens);
      for (size_t l = 0; l < 6; ++l) {
        EXPECT_EQ(found.blocks[l].attention, one.blocks[l].attention);
        EXPECT_EQ(found.blocks[l].o, one.blocks[l].o);
        EXPECT_EQ(found.blocks[l].mlp, one.blocks[l].mlp);
        EXPECT_EQ(found.blocks[l].down, one.blocks[l].down);
      }
    });
}

}  // namespace
}  // namespace tessera
