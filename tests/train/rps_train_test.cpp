// Stable-RPS in training: at 1x the ordinary run; above it the dense step, projected. (Method page, section g.)

#include <gmock/gmock.h>

#include "model/sharing/selection.h"
#include "model/sharing_io.h"
#include "train/rps_training.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;

// --- g1 ---

class RpsAtOneTimes : public RpsTraining, public testing::WithParamInterface<std::tuple<bool, bool, std::string>> {};

TEST_P(RpsAtOneTimes, IsTheOrdinaryRunToTheBitFor200Steps) {
  const auto& [tied, pretrained, scale] = GetParam();
  config_.train.clip = 0.5;
  config_.optimizer.weight_decay = 0.1;
  for (const auto& shared : {std::vector<std::string>{"linears", "embedding"}, {"linears"}}) {
    SharingConfig sharing = rps(1, shared);
    sharing.scale = scale;
    Model source(settings({}, {.tied = tied}));
    const auto make = [&](const SharingConfig& s) {
      return std::make_unique<Model>(pretrained ? given(exported(source), s) : settings(s, {.tied = tied}));
    };
    const auto dense = make({}), folded = make(sharing);
    EXPECT_EQ(test::slot_of(folded->pool(), "rps.pool").shape.count() + 7 * 16 +
                  (tied ? 0 : 23 * 16) * (shared.size() == 1 ? 2 : 1) + (tied && shared.size() == 1 ? 23 * 16 : 0),
              dense->pool().trainable_count());
    const auto expected = train(*dense, 200), found = train(*folded, 200);
    int clipped = 0;
    for (size_t step = 0; step < 200; ++step) {
      ASSERT_EQ(found[step].loss, expected[step].loss) << "step " << step + 1;
      const double norm = expected[step].extra.at("grad_norm").as_number();
      ASSERT_EQ(found[step].extra.at("grad_norm").as_number(), norm) << "step " << step + 1;
      clipped += norm > 0.5;
    }
    EXPECT_GT(clipped, 10);
    EXPECT_LT(expected.back().loss, 0.5 * expected.front().loss) << "something was learned";
    expect_same_weights(*folded, *dense, shared.size() == 1 ? "linears" : "linears and embedding");
  }
}

INSTANTIATE_TEST_SUITE_P(Runs, RpsAtOneTimes,
                         testing::Combine(testing::Bool(), testing::Bool(), testing::Values("auto", "exact")),
                         [](const auto& info) {
                           return fmt::format("{}_{}_{}", std::get<0>(info.param) ? "tied" : "untied",
                                              std::get<1>(info.param) ? "given" : "drawn", std::get<2>(info.param));
                         });

// --- g3 ---

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

// --- g4 ---

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

// --- g5 ---

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

// --- kappa ---

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

// --- A frozen base below an adapter ---

TEST_F(RpsTraining, AnAdapterOnAFrozenSharedBaseGetsTheGradientsItGetsOnTheDenseExport) {
  for (const bool tied : {false, true}) {
    Model base(settings(rps(4), {.tied = tied}));
    save_sharing(folder_ / "shared", base);
    Model::Settings on_shared = settings(rps(4), {.tied = tied}), on_dense = given(exported(base));
    on_shared.sharing.load = folder_ / "shared";
    for (Model::Settings* s : {&on_shared, &on_dense}) {
      s->train_base = false;
      s->adapter.method = "mos";
      s->adapter.rank = 4;
      s->adapter.shards = 2;
      s->adapter.equivalent_rank = 2;
    }
    Model shared(on_shared), dense(on_dense);
    ASSERT_EQ(shared.pool().trainable_count(), dense.pool().trainable_count());
    for (const auto& rows : {std::vector<int64_t>{0}, {0, 1, 2, 3, 4, 5, 6}}) {  // 12 tokens, and more than 64
      for (Model* model : {&shared, &dense}) {
        test::fill_all_normal(model->pool(), 3, 0.3);
        model->pool().zero_grads();
        model->assemble(own_.ctx);
        backprop_batch(own_.ctx, *model, batch(rows));
        model->bound_adapter()->finish_backward(own_.ctx);
      }
      std::vector<double> ours, theirs;
      append(ours, shared.pool().trainable().grads);
      append(theirs, dense.pool().trainable().grads);
      EXPECT_GT(norm(theirs), 1);
      EXPECT_LE(norm(difference(ours, theirs)), 1e-6 * norm(theirs)) << rows.size() << " rows";
    }
  }
}

}  // namespace
}  // namespace tessera
