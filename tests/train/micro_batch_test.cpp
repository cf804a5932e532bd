// How the rows of a step are cut into passes does not show: sums of losses go on from one pass to the next, row after
// row, and so do the gradients of weights, norms and biases.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>

#include "score/evaluate.h"
#include "support/tiny_model.h"
#include "support/token_data.h"
#include "train/backprop.h"
#include "train/spsa/prober.h"

namespace tessera {
namespace {

constexpr int64_t kRows = 7, kLength = 21;

class MicroBatch : public testing::Test {
 protected:
  std::unique_ptr<Model> model() {
    Model::Settings settings = test::tiny_settings(folder_.path(), {.biases = true});
    settings.train_base = true;
    auto model = std::make_unique<Model>(settings);
    uint32_t seed = 1;
    for (const TrainableSlot& slot : model->pool().trainable().slots)
      if (slot.shape.rank == 1) test::fill_normal(test::slot_of(model->pool(), slot.name), seed++, 0.5);
    model->assemble(own_.ctx);
    return model;
  }
  /// Rows [0, kRows), so many at a time.
  std::vector<PackedBatch> batches(int64_t at_once) const {
    std::vector<PackedBatch> batches;
    for (int64_t begin = 0; begin < kRows; begin += at_once) {
      std::vector<int64_t> rows;
      for (int64_t row = begin; row < std::min(begin + at_once, kRows); ++row) rows.push_back(row);
      batches.push_back(data_.batch(rows, begin));
    }
    return batches;
  }

  test::TemporaryFolder folder_;
  test::OwnContext own_;
  PackedDataset data_{test::token_data(kRows, kLength), kLength, 5};
};

struct Step {
  LossSums sums;
  std::map<std::string, std::vector<float>> vectors;  // gradients, by name
};

TEST_F(MicroBatch, LeavesTheSameLossAndGradients) {
  const auto model = this->model();
  const auto step = [&](int64_t at_once, int threads) {
    own_.ctx.threads = threads;
    model->pool().zero_grads();
    Step found;
    for (const PackedBatch& batch : batches(at_once))
      found.sums = backprop_batch(own_.ctx, *model, batch, {}, std::move(found.sums));
    for (const TrainableSlot& slot : model->pool().trainable().slots) {
      // The matrix of a tied head is summed by the head and by the embedding in turn: there the cut shows.
      if (slot.name == "model.embed_tokens.weight") continue;
      const auto grads = test::slot_of(model->pool(), slot.name, true).as<float>();
      found.vectors[slot.name].assign(grads.begin(), grads.end());
    }
    return found;
  };
  const Step whole = step(kRows, 2);
  ASSERT_GE(whole.vectors.size(), 3u * 16 + 1);  // seven linears, two norms and seven biases a block, the final norm
  EXPECT_EQ(whole.sums["scored"], static_cast<double>(kRows * (kLength - 1)));
  for (const int64_t at_once : {1, 2, 3})
    for (const int threads : {1, 3}) {
      const Step cut = step(at_once, threads);
      EXPECT_EQ(cut.sums["nll"], whole.sums["nll"]) << at_once << " rows at once";
      for (const auto& [name, gradient] : whole.vectors)
        EXPECT_EQ(cut.vectors.at(name), gradient) << name << ", " << at_once << " rows at once";
    }
}

TEST_F(MicroBatch, LeavesTheSameSumsOfAnEvaluation) {
  const auto model = this->model();
  const auto world = self_communicator();
  const LossSums whole = evaluate(own_.ctx, *model, data_, *world, {}, kRows);
  for (const int64_t at_once : {1, 2, 5}) {
    const LossSums cut = evaluate(own_.ctx, *model, data_, *world, {}, at_once);
    EXPECT_TRUE(std::ranges::equal(cut.values(), whole.values())) << at_once;
  }
}

/// Nor does how many points share a pass.
TEST_F(MicroBatch, LeavesTheSameLossesOfProbes) {
  const auto model = this->model();
  std::vector<Point> points;
  for (const uint16_t sample : {1, 2, 3})
    points.push_back({{.seed = 5, .round = 2, .machine = 1, .sample = sample}, 0.05f});
  for (const auto perturb : {Prober::Perturb::copies, Prober::Perturb::layers}) {
    std::vector<std::vector<double>> found;
    for (const int64_t side_by_side : {1, 2, 3})
      for (const int64_t at_once : {int64_t{1}, int64_t{3}, kRows}) {
        Prober prober(*model, perturb, side_by_side);
        std::vector<double> nll;
        for (const LossSums& sums : prober.losses(own_.ctx, batches(at_once), points)) nll.push_back(sums["nll"]);
        found.push_back(nll);
      }
    for (const auto& nll : found) EXPECT_EQ(nll, found.front());
    EXPECT_NE(found[0][0], found[0][1]);
  }
}

}  // namespace
}  // namespace tessera
