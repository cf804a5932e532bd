// Stable-RPS: how far a step goes depends on neither sigma_0 nor the number of readers, except where kappa says so.

#include <gmock/gmock.h>

#include "core/error.h"
#include "train/rps_training.h"

namespace tessera {
namespace {

using namespace test;

TEST_F(RpsTraining, DoesNotDependOnSigmaWithDAndBreaksOrStallsWithout) {
  constexpr int64_t kSteps = 60;
  const auto curve = [&](double sigma_0, const std::string& precond) {
    SharingConfig sharing = rps(4);
    sharing.sigma_0 = sigma_0;
    sharing.scale = "exact";
    sharing.precond = precond;
    Model model(settings(sharing, {.tied = true, .initializer_range = 0.2}));
    return losses(model, kSteps);
  };
  for (const char* optimizer : {"sgd", "adamw"}) {
    config_.optimizer.name = optimizer;
    config_.optimizer.momentum = 0;
    config_.optimizer.lr = *optimizer == 's' ? 0.3 : 3e-3;
    const std::vector<double> expected = curve(0.04, "D");
    EXPECT_LT(expected.back(), 0.8 * expected.front()) << optimizer;
    for (const double sigma_0 : {1e-3, 10.0}) {
      const std::vector<double> found = curve(sigma_0, "D");
      for (int64_t step = 0; step < kSteps; ++step)
        ASSERT_NEAR(found[step], expected[step], 1e-5 * expected[step])
            << optimizer << ", sigma_0 " << sigma_0 << ", step " << step + 1;
    }
    if (*optimizer == 'a') continue;
    // The positive control: without D the step is eta · D, cell by cell.
    int broken = 0;
    for (const double sigma_0 : {1e-3, 0.04, 10.0}) {
      double last = std::numeric_limits<double>::infinity();
      try {
        last = curve(sigma_0, "none").back();
      } catch (const UserError& error) {
        EXPECT_THAT(error.message(), testing::HasSubstr("not finite"));
      }
      broken += !(last < expected.front() - 0.2 * (expected.front() - expected.back()));
    }
    EXPECT_GE(broken, 1);
  }
}

TEST_F(RpsTraining, KappaScalesAdamWsStepsAndNotThoseOfSgd) {
  const auto trained = [&](const char* kappa, const char* optimizer, int64_t steps) {
    SharingConfig sharing = rps(3.3);
    sharing.kappa = kappa;
    config_.optimizer.name = optimizer;
    config_.optimizer.lr = 1e-3;
    auto model = std::make_unique<Model>(settings(sharing, {.tied = true}));
    train(*model, steps);
    return model;
  };
  expect_same_weights(*trained("unit", "sgd", 10), *trained("iso", "sgd", 10), "sgd");
  Model start(settings(rps(3.3), {.tied = true}));
  const int64_t m = test::slot_of(start.pool(), "rps.pool").shape.count();
  const PageFold page{123321, m};
  const std::vector<double> before = weights(start);
  std::vector<double> readers(static_cast<size_t>(m));
  for (size_t i = 0; i < before.size(); ++i) ++readers[page.cell(static_cast<int64_t>(i))];
  // AdamW's first step is sign(g): each weight moves by the rate (unit), or its cell's weights together do (iso).
  for (const char* kappa : {"unit", "iso"}) {
    const std::vector<double> step = difference(weights(*trained(kappa, "adamw", 1)), before);
    int64_t counted = 0;
    for (size_t i = 0; i < step.size(); ++i) {
      const double share = *kappa == 'u' ? 1 : std::sqrt(readers[page.cell(static_cast<int64_t>(i))]);
      counted += std::abs(std::abs(step[i]) * share / 1e-3 - 1) < 2e-3;  // a gradient near eps moves by less
    }
    EXPECT_GT(counted, static_cast<int64_t>(0.95 * static_cast<double>(step.size()))) << kappa;
  }
}

TEST_F(RpsTraining, DecaysACellOnceAStepHoweverManyWeightsReadIt) {
  test::OwnContext own;
  const std::vector<WeightSpec> specs{matrix_spec("a", {8, 9}, test::normal(1)),
                                      matrix_spec("b", {9, 9}, test::normal(0.1))};
  for (const char* name : {"sgd", "adamw"}) {
    BoundBase base(rps(5, {"linears"}), specs);
    std::vector<double> before, after;
    for (const ViewPtr& view : base.views) append(before, test::gathered(own.ctx, base.pool, *view).view());
    FlatParams& params = base.pool.trainable();
    const OptimizerConfig config{.name = name, .weight_decay = 0.5};
    make_optimizer(config, params.values.shape.count())->step(own.ctx, params, {1, 0.5f, 1});
    for (const ViewPtr& view : base.views) append(after, test::gathered(own.ctx, base.pool, *view).view());
    for (size_t i = 0; i < before.size(); ++i)
      ASSERT_NEAR(after[i], 0.75 * before[i], 1e-6 * std::abs(before[i])) << name;
  }
}

}  // namespace
}  // namespace tessera
