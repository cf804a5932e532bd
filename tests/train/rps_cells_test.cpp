// Stable-RPS above 1x: all weights that read a cell move with it.

#include "model/sharing_io.h"
#include "train/rps_training.h"

namespace tessera {
namespace {

using namespace test;

class RpsUnder : public RpsTraining, public testing::WithParamInterface<std::string> {
 protected:
  void choose_optimizer() {
    config_.optimizer.name = GetParam() == "adamw" ? "adamw" : "sgd";
    config_.optimizer.momentum = GetParam() == "momentum" ? 0.9 : 0;
    config_.optimizer.weight_decay = 0.01;
    config_.optimizer.lr = GetParam() == "adamw" ? 1e-2 : 3e-2;
    config_.train.clip = 1;
  }
};

TEST_P(RpsUnder, WeightsOfOneCellStayTogetherToTheBit) {
  choose_optimizer();
  SharingConfig sharing = rps(3.3);
  Model model(settings(sharing, {.tied = true}));
  const int64_t m = test::slot_of(model.pool(), "rps.pool").shape.count();
  const PageFold page{123321, m};
  std::vector<double> before;
  const auto expect_together = [&](Model& of, const std::string& when) {
    const std::vector<double> w = weights(of);
    std::vector<double> cell(static_cast<size_t>(m), std::nan(""));
    for (size_t i = 0; i < w.size(); ++i) {  // all λ are alike here, so a cell's factor is the same for its readers
      double& other = cell[static_cast<size_t>(page.cell(static_cast<int64_t>(i)))];
      const double own = page.sign(static_cast<int64_t>(i)) * w[i];
      if (!std::isnan(other)) {
        ASSERT_EQ(own, other) << when << ", weight " << i;
      }
      other = own;
    }
    EXPECT_NE(w, before) << when;
    before = w;
  };
  expect_together(model, "at the start");
  train(model, 1);
  expect_together(model, "after a step");
  train(model, 30);
  expect_together(model, "after 31 steps");
  save_sharing(folder_ / "shared", model);
  sharing.load = folder_ / "shared";
  Model loaded(settings(sharing, {.tied = true}));
  EXPECT_EQ(weights(loaded), before);
  train(loaded, 5);
  expect_together(loaded, "when trained on");
}

INSTANTIATE_TEST_SUITE_P(Optimizers, RpsUnder, testing::Values("sgd", "momentum", "adamw"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tessera
