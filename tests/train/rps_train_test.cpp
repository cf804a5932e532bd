// Stable-RPS in training: at 1x the ordinary run; above it the dense step, projected. (Method page, section g.)

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>
#include <numeric>

#include "core/minifloat.h"
#include "kernels/votes.h"
#include "model/export.h"
#include "model/sharing/selection.h"
#include "model/sharing_io.h"
#include "support/rps.h"
#include "train/backprop.h"
#include "train/spsa/packer.h"
#include "train/spsa/replica.h"
#include "train/spsa/spsa_inputs.h"
#include "train/stepper.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::BoundBase;
using test::matrix_spec;
using test::PageFold;
using test::rps;

TokenData tokens_of(int64_t documents, int64_t length, int64_t vocabulary) {
  TokenData data;
  for (int64_t d = 0; d < documents; ++d) {
    for (int64_t t = 0; t < length; ++t) {
      data.tokens.push_back(static_cast<int32_t>((3 * d + t + t * t / 3) % vocabulary));
      data.scored.push_back(1);
    }
    data.ends.push_back(static_cast<int64_t>(data.tokens.size()));
  }
  data.hash = "made up";
  return data;
}

/// The numbers of the shared tensors' weights, in the order of the flat range: s(i) · λ in `coefficient`, h(i) in `cell`.
struct Map {
  std::vector<int64_t> cell;
  std::vector<double> coefficient;
  std::vector<double> d;  // [cells]

  Map(const std::vector<double>& lambda_of_weight, int64_t cells, uint64_t seed = 123321)
      : d(static_cast<size_t>(cells)) {
    const PageFold page{seed, cells};
    for (size_t i = 0; i < lambda_of_weight.size(); ++i) {
      cell.push_back(page.cell(static_cast<int64_t>(i)));
      coefficient.push_back(page.sign(static_cast<int64_t>(i)) * lambda_of_weight[i]);
      d[cell.back()] += coefficient.back() * coefficient.back();
    }
  }
  /// Π = M D⁻¹ Mᵀ, whole.
  std::vector<double> projector() const {
    const size_t n = cell.size();
    std::vector<double> pi(n * n);
    for (size_t i = 0; i < n; ++i)
      for (size_t k = 0; k < n; ++k)
        if (cell[i] == cell[k]) pi[i * n + k] = coefficient[i] * coefficient[k] / d[cell[i]];
    return pi;
  }
};

std::vector<double> times(const std::vector<double>& matrix, const std::vector<double>& x) {
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i)
    y[i] = std::inner_product(x.begin(), x.end(), matrix.begin() + static_cast<int64_t>(i * x.size()), 0.0);
  return y;
}

double norm(const std::vector<double>& x) { return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0)); }

std::vector<double> difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> c(a.size());
  for (size_t i = 0; i < a.size(); ++i) c[i] = a[i] - b[i];
  return c;
}

void append(std::vector<double>& list, const ConstView& view) {
  for (int64_t i = 0; i < view.shape.count(); ++i) list.push_back(element(view, i));
}

class RpsTraining : public testing::Test {
 protected:
  RpsTraining() : world_(self_communicator()), data_(tokens_of(40, 12, 23), 12, 1), report_(nullptr, Progress::none) {
    own_.ctx.threads = 1;  // models this small would only wait for another
    config_.train.batch = 4;
    config_.train.micro_batch = 2;
    config_.train.sequence_length = 12;
    config_.train.clip = 0;
    config_.optimizer.lr = 1e-2;
    config_.optimizer.schedule = "constant";
  }
  Model::Settings settings(const SharingConfig& sharing, const test::TinyConfig& config = {}) {
    Model::Settings s = test::tiny_settings(folder_.path(), config);
    s.sharing = sharing;
    s.train_base = true;
    return s;
  }
  /// The model's weights as a dense folder.
  fs::path exported(Model& model, const std::string& name = "dense") {
    export_merged(folder_ / name, model, folder_.path(), own_.ctx);
    return folder_ / name;
  }
  Model::Settings given(const fs::path& folder, const SharingConfig& sharing = {}) {
    Model::Settings s;
    s.model.path = folder;
    s.max_position = 64;
    s.sharing = sharing;
    s.train_base = true;
    return s;
  }
  TrainerInputs inputs(Model& model) {
    return {.config = config_, .model = model, .data = data_, .world = *world_, .ctx = own_.ctx, .report = report_};
  }
  /// Reports of the trainer's own steps.
  std::vector<StepReport> train(Model& model, int64_t steps) {
    config_.train.steps = steps;
    const TrainerInputs in = inputs(model);
    const auto stepper = make_backprop_stepper(in);
    stepper->restore();
    std::vector<StepReport> reports;
    for (int64_t step = 1; step <= steps; ++step) reports.push_back(*stepper->take(step));
    return reports;
  }
  std::vector<double> losses(Model& model, int64_t steps) {
    std::vector<double> list;
    for (const StepReport& report : train(model, steps)) list.push_back(report.loss);
    return list;
  }
  /// All weights of the model's shared (or other) tensors, one behind the other in the order of the specs.
  std::vector<double> weights(Model& model, bool shared = true) {
    std::vector<double> list;
    const auto& specs = model.decoder().specs();
    for (size_t i = 0; i < specs.size(); ++i) {
      const WeightSpec& spec = specs[i];
      const bool is_shared = spec.role == Role::linear || spec.role == Role::embedding;
      if (is_shared != shared || spec.storage != spec.name) continue;
      append(list, test::gathered(own_.ctx, model.pool(), *model.decoder().weight(static_cast<int>(i))).view());
    }
    return list;
  }
  void expect_same_weights(Model& a, Model& b, const std::string& what) {
    for (int i = 0; i < static_cast<int>(a.decoder().specs().size()); ++i)
      EXPECT_TRUE(test::same_bytes(test::gathered(own_.ctx, a.pool(), *a.decoder().weight(i)).view(),
                                   test::gathered(own_.ctx, b.pool(), *b.decoder().weight(i)).view()))
          << a.decoder().specs()[i].name << ", " << what;
  }
  PackedBatch batch(std::vector<int64_t> rows = {0, 1, 2}) const { return data_.batch(rows, 0); }

  test::TemporaryFolder folder_;
  test::OwnContext own_;
  std::unique_ptr<Communicator> world_;
  PackedDataset data_;
  Reporter report_;
  TrainerConfig config_;
};

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

// --- g9 ---

const test::TinyConfig kWide{.vocab_size = 301,
                             .hidden_size = 64,
                             .intermediate_size = 160,
                             .layers = 3,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 16,
                             .tied = true};

TEST_F(RpsTraining, TakesATenthOfTheMemoryOfWeightsGradientsAndMoments) {
  const auto bytes = [&](const SharingConfig& sharing) {
    Model model(settings(sharing, kWide));
    const auto optimizer = make_optimizer(config_.optimizer, model.pool().trainable().values.shape.count());
    return static_cast<double>(model.pool().owned_bytes() + optimizer->state_bytes());
  };
  EXPECT_LE(bytes(rps(10)), 0.12 * bytes({}));
  EXPECT_LE(bytes(rps(1)), 1.01 * bytes({}));
}

#ifdef __GLIBC__
TEST(RpsMemory, ViewsAndPlanKeepNothingAWeight) {
  const auto heap = [] {
    const struct mallinfo2 info = mallinfo2();
    return static_cast<double>(info.uordblks + info.hblkhd);
  };
  std::vector<WeightSpec> specs;
  double count = 0;
  for (int k = 0; k < 16; ++k) {
    specs.push_back(matrix_spec(fmt::format("t{}", k), {1000, 500}, test::normal(k % 2 ? 0.02 : 1)));
    count += 500'000;
  }
  for (const char* layout : {"row", "tile"}) {
    SharingConfig config = rps(100, {"linears"});
    config.layout = layout;
    const double before = heap();
    const BoundBase base(config, specs);
    EXPECT_LT(heap() - before - static_cast<double>(base.pool.owned_bytes()), count / 16) << layout;  // half a bit
  }
}
#endif

TEST_F(RpsTraining, PlansNoMoreScratchThanTheDenseRunAndTwoMatrices) {
  test::TinyConfig deeper = kWide;
  deeper.layers = 8;
  Model dense(settings({}, kWide)), folded(settings(rps(10), kWide)), whole(settings(rps(1), kWide));
  Model deep_dense(settings({}, deeper)), deep(settings(rps(10), deeper));
  int64_t largest = 0;
  for (const WeightSpec& spec : dense.decoder().specs()) largest = std::max(largest, 4 * spec.shape.count());
  const int64_t panels = 2 * 300'000;  // of two threads: products of few rows expand their tiles into them
  for (const bool backward : {false, true})
    for (const bool checkpointed : {false, true})
      for (const int64_t rows : {1, 4}) {
        const auto plan = [&](Model& model) {
          return backward ? plan_backprop_bytes(model, rows, 48, 2, {.checkpoint_activations = checkpointed})
                          : plan_score_bytes(model, rows, 48, 2);
        };
        EXPECT_LE(plan(folded), plan(dense) + 2 * largest + panels);
        EXPECT_LE(plan(deep), plan(deep_dense) + 2 * largest + panels) << "no matrix is kept for a layer";
        EXPECT_EQ(plan(whole), plan(dense)) << "read in place";
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

// --- g12 ---

class RpsProbes : public RpsTraining {
 protected:
  std::unique_ptr<Model> make(bool gradients = true, const SharingConfig& sharing = rps(3.3)) {
    Model::Settings s = settings(sharing, {.tied = true});
    s.gradients = gradients;
    return std::make_unique<Model>(s);
  }
  static Direction direction(uint16_t sample) { return {.seed = 5, .round = 2, .machine = 1, .sample = sample}; }
};

TEST_F(RpsProbes, MoveTheWeightsOfACellTogetherAndTheModelByTheCellsNumber) {
  for (const double compression : {1.0, 3.3}) {
    const auto model = make(false, rps(compression));
    const FlatParams& params = model->pool().trainable();
    const float eps = 0x1p-7f;
    Tensor copy(params.values.shape, DType::f32);
    perturb(own_.ctx, params.values, 0, direction(3), eps, copy);
    const PoolRead moved{&model->pool(), nullptr, 0, copy.view()};
    const int64_t m = test::slot_of(model->pool(), "rps.pool").shape.count();
    const PageFold page{123321, m};
    std::vector<double> w, cell(static_cast<size_t>(m), std::nan(""));
    const auto& specs = model->decoder().specs();
    for (size_t i = 0; i < specs.size(); ++i) {
      if (specs[i].role != Role::linear && specs[i].role != Role::embedding) continue;
      Tensor one(specs[i].shape, DType::f32);
      model->decoder().weight(static_cast<int>(i))->gather(own_.ctx, moved, one);
      append(w, one.view());
    }
    for (size_t i = 0; i < w.size(); ++i) {
      double& other = cell[static_cast<size_t>(page.cell(static_cast<int64_t>(i)))];
      const double own = page.sign(static_cast<int64_t>(i)) * w[i];
      if (!std::isnan(other)) {
        ASSERT_EQ(own, other) << "weight " << i;
      }
      other = own;
    }
    // Isotropic in the subspace: a cell's weights together move by eps, whatever their scale and number.
    const double length = norm(difference(w, weights(*model)));
    EXPECT_NEAR(length, eps * std::sqrt(static_cast<double>(m)), 1e-4 * length);
  }
}

TEST_F(RpsProbes, ReadCopiesAndGiveTheLossOfWeightsThatWereTrulyMoved) {
  SpsaConfig spsa;
  const auto model = make(false), untouched = make(false);
  const auto prober = make_prober(spsa, *model);
  EXPECT_GE(prober->owned_bytes(), model->pool().trainable().values.bytes()) << "auto picks copies";
  const std::vector<Point> points{{direction(0), 0.01f}, {direction(0), -0.01f}, {{}, 0}, {direction(4), 0.3f}};
  const PackedBatch rows = batch();
  const auto sums = prober->losses(own_.ctx, {&rows, 1}, points);
  for (size_t k = 0; k < points.size(); ++k) {
    const auto moved = make(false);
    const FlatParams& params = moved->pool().trainable();
    Tensor copy(params.values.shape, DType::f32);
    perturb(own_.ctx, params.values, 0, points[k].z, points[k].scale, copy);
    std::memcpy(params.values.mutable_data(), copy.view().data, static_cast<size_t>(params.values.bytes()));
    EXPECT_EQ(sums[k].nll, score_batch(own_.ctx, *moved, rows).nll) << "point " << k;
  }
  EXPECT_TRUE(test::same_bytes(model->pool().trainable().values, untouched->pool().trainable().values));
}

TEST_F(RpsProbes, FindTheGradientsPartAlongTheirDirection) {
  const auto model = make();
  const PackedBatch rows = batch();
  backprop_batch(own_.ctx, *model, rows);
  const FlatParams& params = model->pool().trainable();
  const auto q = params.grads.as<float>();
  Prober prober(*model, Prober::Perturb::copies, 2);
  std::vector<double> found, expected;
  for (uint16_t sample = 0; sample < 24; ++sample) {
    const Direction z = direction(sample);
    // The sum of 33 losses near 3 is known to about 1e-5, so the slope (about 90) to 0.005; the third derivative adds a
    // part that falls with eps²: 2.6 % at 3e-3, 0.3 % here.
    const float eps = 1e-3f;
    const auto sums = prober.losses(own_.ctx, {&rows, 1}, std::vector<Point>{{z, eps}, {z, -eps}});
    found.push_back((sums[0].nll - sums[1].nll) / (2 * static_cast<double>(eps)));
    double along = 0;
    for (const TrainableSlot& slot : params.slots)
      for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); ++p)
        along += static_cast<double>(q[p]) * sign_at(z, static_cast<uint64_t>(p));
    expected.push_back(along);
  }
  EXPECT_LE(norm(difference(found, expected)), 0.01 * norm(expected));
}

/// A replica that applies votes, and an optimizer that is given the gradient they describe: five rounds to the same bits.
void expect_same_steps(const Context& ctx, FlatParams& probed, FlatParams& trained) {
  RunHeader header;
  header.manifest = manifest_of(probed);
  header.seed = 9;
  header.m = 2;
  header.optimizer = "adamw";
  header.beta1 = 0.5;  // exact in f32, as the replica holds them
  header.beta2 = 0.75;
  header.clip = 0;
  Replica replica(header, probed);
  const OptimizerConfig config{.name = "adamw", .beta1 = 0.5, .beta2 = 0.75};
  const auto optimizer = make_optimizer(config, trained.values.shape.count());
  ChainTip tip;
  for (int64_t round = 0; round < 5; ++round) {
    std::map<uint32_t, Vote> votes;
    votes[0].bytes = {static_cast<uint8_t>(0x31 + 16 * round), 0xa5};
    const Record record = pack_round(replica, {}, tip, votes, 1, {1e-3f, 1});
    tip.advance(encode(record));
    const float scale = std::ldexp(1.0f, -replica.unit()) / 2;
    const auto vote = [&](uint16_t s, int64_t p) {
      const Direction z = direction_of(header, static_cast<uint32_t>(round), 0, 0, s);
      return decode_vote(votes[0].bytes[s]) * sign_at(z, static_cast<uint64_t>(p));
    };
    for (const TrainableSlot& slot : trained.slots)
      for (int64_t p = slot.begin; p < slot.begin + slot.shape.count(); ++p)
        trained.grads.as<float>()[p] = scale * static_cast<float>(vote(0, p) + vote(1, p));
    replica.apply(ctx, record);
    optimizer->step(ctx, trained, {round + 1, -record.alpha / scale, 1});
    ASSERT_TRUE(test::same_bytes(probed.values, trained.values)) << "round " << round;
  }
}

TEST_F(RpsProbes, AReplicaTakesTheStepsOfTheOptimizer) {
  const auto probed = make(false), trained = make(), start = make(false);
  expect_same_steps(own_.ctx, probed->pool().trainable(), trained->pool().trainable());
  EXPECT_FALSE(test::same_bytes(probed->pool().trainable().values, start->pool().trainable().values));
}

TEST_F(RpsProbes, AReplicaTakesTheStepsOfTheOptimizerInPiecesThatItsBlocksCut) {
  ParameterPool probed, trained;
  for (ParameterPool* pool : {&probed, &trained}) {
    pool->reserve("a", {.shape = {333}, .init = test::normal(1)});
    pool->reserve("cells", {.shape = {150'000},
                            .init = test::normal(1),
                            .step_scale = 0.5,
                            .adaptive_steps = {{1, 3}, {65'535, 2}, {65'537, 5}, {140'000, 1.5}, {150'000, 4}}});
    pool->allocate(3);
  }
  expect_same_steps(own_.ctx, probed.trainable(), trained.trainable());
}

TEST_F(RpsProbes, AManifestTellsTheAdaptiveSteps) {
  const auto lines = [&](const char* kappa) {
    SharingConfig sharing = rps(3.3);
    sharing.kappa = kappa;
    return manifest_of(make(false, sharing)->pool().trainable());
  };
  const auto unit = lines("unit"), iso = lines("iso");
  EXPECT_THAT(iso.back(), testing::Not(testing::HasSubstr("adaptive")));
  EXPECT_THAT(unit.back(), testing::StartsWith(iso.back() + ", adaptive steps to "));
  EXPECT_THAT(unit.back(), testing::HasSubstr(" x 2"));  // cells of 4 readers
  EXPECT_THAT(unit.back(), testing::HasSubstr(fmt::format(" x {}", std::sqrt(3.0f))));
}

}  // namespace
}  // namespace tessera
