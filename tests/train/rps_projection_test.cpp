// Stable-RPS above 1x: a step of SGD is the dense step, projected on the weights that a pool can hold.

#include "model/sharing/selection.h"
#include "train/rps_training.h"

namespace tessera {
namespace {

using namespace test;

TEST_F(RpsTraining, AnSgdStepIsTheDenseStepProjectedOnTheSharedSubspace) {
  config_.optimizer.name = "sgd";
  config_.optimizer.momentum = 0;
  config_.optimizer.lr = 0.25;
  config_.train.batch = config_.train.micro_batch = 4;
  const test::TinyConfig tiny{.vocab_size = 23,
                              .hidden_size = 8,
                              .intermediate_size = 6,
                              .layers = 1,
                              .heads = 2,
                              .kv_heads = 1,
                              .head_dim = 4};
  for (const double compression : {1.5, 2.9, 4.0, 30.0}) {
    Model model(settings(rps(compression), tiny));
    test::fill_all_normal(model.pool(), 7, 0.5);
    Model dense(given(exported(model)));
    const std::vector<double> before = weights(model), own_before = weights(model, false);
    ASSERT_EQ(weights(dense), before);

    // The dense gradient, and the step that the plain trainer takes with it.
    const auto dense_report = train(dense, 1).front();
    std::vector<double> g = difference(before, weights(dense));
    for (double& x : g) x /= 0.25;

    const auto report = train(model, 1).front();
    EXPECT_EQ(report.loss, dense_report.loss);
    const std::vector<double> step = difference(weights(model), before);

    const auto cells = test::slot_of(model.pool(), "rps.pool").shape.count();
    const Map map(std::vector<double>(before.size(), 0.3 / 0.04), cells);
    const std::vector<double> pi = map.projector();
    double trace = 0;
    const size_t n = before.size();
    for (size_t i = 0; i < n; ++i) {
      trace += pi[i * n + i];
      std::vector<double> column(pi.begin() + static_cast<int64_t>(i * n),
                                 pi.begin() + static_cast<int64_t>((i + 1) * n));
      ASSERT_LE(norm(difference(times(pi, column), column)), 1e-12) << "Pi is no projector";
    }
    EXPECT_NEAR(trace, static_cast<double>(cells), 1e-9);

    std::vector<double> expected = times(pi, g);
    const double projected = norm(expected);
    for (double& x : expected) x *= -0.25;
    // Rounding: W is formed in f32 before and after, 2^-24 of a weight each time.
    EXPECT_LE(norm(difference(step, expected)), 2e-7 * norm(before) + 1e-5 * norm(expected)) << compression;
    EXPECT_LT(projected, 0.95 * norm(g)) << "something was projected away";

    // Weights that are not shared take the dense step, and the norm that clipping sees is that of what both move by.
    const std::vector<double> own_step = difference(weights(model, false), own_before);
    const std::vector<double> dense_own_step = difference(weights(dense, false), own_before);
    EXPECT_LE(norm(difference(own_step, dense_own_step)), 1e-6 * norm(dense_own_step));
    EXPECT_NEAR(report.extra.at("grad_norm").as_number(), std::hypot(projected, norm(dense_own_step) / 0.25),
                1e-4 * projected);
    EXPECT_LT(report.extra.at("grad_norm").as_number(), dense_report.extra.at("grad_norm").as_number());
  }
}

TEST(RpsStep, OfTensorsWithOtherScalesIsProjectedToo) {
  test::OwnContext own;
  const std::vector<WeightSpec> specs{matrix_spec("e", {11, 9}, test::normal(1)),
                                      matrix_spec("a", {7, 9}, test::normal(0.02)),
                                      matrix_spec("b", {9, 12}, test::uniform(0.3))};
  std::vector<double> lambdas;
  for (const WeightSpec& spec : specs)
    lambdas.insert(lambdas.end(), static_cast<size_t>(spec.shape.count()), deviation_of(spec.init) / 0.04);
  for (const double compression : {1.0, 1.7, 3.0, 270.0})
    for (const char* layout : {"row", "tile"}) {
      SharingConfig config = rps(compression, {"linears"});
      config.scale = "exact";
      config.layout = layout;
      config.tile_rows = 4;
      config.tile_cols = 3;
      BoundBase base(config, specs);
      const auto all_weights = [&] {
        std::vector<double> list;
        for (size_t k = 0; k < specs.size(); ++k) {
          const Tensor w = test::gathered(own.ctx, base.pool, *base.views[k]);
          const FoldLayout by{specs[k].shape[0], specs[k].shape[1], *layout == 't' ? 4 : 1, *layout == 't' ? 3 : 0};
          for (int64_t p = 0; p < by.count(); ++p) list.push_back(element(w.view(), by.element(p)));
        }
        return list;
      };
      const std::vector<double> before = all_weights();
      std::vector<double> g;
      for (size_t k = 0; k < specs.size(); ++k) {
        Tensor dw(specs[k].shape, DType::f32);
        test::fill_normal(dw, static_cast<uint32_t>(k), 1);
        base.views[k]->scatter_add(own.ctx, dw.view(), base.pool);
        const FoldLayout by{specs[k].shape[0], specs[k].shape[1], *layout == 't' ? 4 : 1, *layout == 't' ? 3 : 0};
        for (int64_t p = 0; p < by.count(); ++p) g.push_back(element(dw.view(), by.element(p)));
      }
      FlatParams& params = base.pool.trainable();
      const OptimizerConfig sgd{.name = "sgd", .momentum = 0};
      make_optimizer(sgd, params.values.shape.count())->step(own.ctx, params, {1, 0.5f, 1});
      const Map map(lambdas, base.pool.trainable_count());
      std::vector<double> expected = times(map.projector(), g);
      for (double& x : expected) x *= -0.5;
      EXPECT_LE(norm(difference(difference(all_weights(), before), expected)), 2e-6 * norm(expected))
          << compression << " " << layout;
    }
}

}  // namespace
}  // namespace tessera
