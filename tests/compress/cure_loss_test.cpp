// The cure's loss: its gradients, what it compares with what, and what it is without weights.

#include "compress/cure_loss.h"

#include <gmock/gmock.h>

#include <utility>

#include "support/batches.h"
#include "support/folds.h"
#include "support/gradcheck.h"
#include "support/token_data.h"

namespace tessera {
namespace {

using test::OwnContext;

constexpr test::TinyConfig kSize{.hidden_size = 12, .intermediate_size = 14, .layers = 6, .heads = 4, .kv_heads = 2};

class CureLossTest : public testing::Test {
 protected:
  CureLossTest() {
    fold_.kl_weight = 0.75;
    fold_.temperature = 2;
    fold_.tail_weight = 0.6;
    fold_.tail_layers = 3;
  }

  Model::Settings settings(DType type) const {
    Model::Settings settings = test::tiny_settings(folder_.path(), kSize);
    settings.parameters = settings.activations = type;
    return settings;
  }
  /// A student whose numbers have nothing to do with its teacher's.
  std::unique_ptr<Model> student(FoldPlan plan, FoldTraining training, DType type) {
    Model::Settings of = settings(type);
    of.seed = 5;
    of.train_base = true;
    FoldMaking making{.plan = std::move(plan), .state = {}, .training = training};
    making.cure.emplace();
    making.cure->method = "lora";
    making.cure->rank = 2;
    making.cure->dropout = 0.2;
    test::fold_by(std::move(making), of);
    auto model = std::make_unique<Model>(of);
    uint32_t seed = 1;
    for (const TrainableSlot& slot : model->pool().trainable().slots) {
      const bool is_around_one = slot.name.find("norm") != std::string::npos || slot.name.ends_with(".gain");
      const TensorView values = test::slot_of(model->pool(), slot.name);
      test::fill_normal(values, seed++, 0.2);
      if (is_around_one)
        for (int64_t i = 0; i < values.shape.count(); ++i) set_element(values, i, 1 + element(values, i));
    }
    return model;
  }
  static CureLoss::Sums pass(const Context& ctx, const CureLoss& loss, Model& model, const BackpropOptions& options) {
    model.assemble(ctx);
    const CureLoss::Sums sums = loss.add_gradients(ctx, model, test::packed_batch(), options, {});
    if (model.bound_adapter()) model.bound_adapter()->finish_backward(ctx);
    return sums;
  }
  static std::vector<double> numbers(const ConstView& view) {
    std::vector<double> all;
    for (int64_t i = 0; i < view.shape.count(); ++i) all.push_back(element(view, i));
    return all;
  }

  test::TemporaryFolder folder_;
  FoldConfig fold_;
};

/// Everything is trained; then what layers have of their own, over activations that are computed twice.
TEST_F(CureLossTest, GradientsAreTheWholeLossesDerivatives) {
  const OwnContext own("reference");
  Model teacher(settings(DType::f64));
  fold_.tail_layers = 2;
  const FoldPlan plan =
      test::fold_plan({6, {1, 3, 4}, {test::group_of({0}), test::group_of({2, 5}, 5)}, {ChildLevel::lora, 1}});
  for (const bool checkpointed : {false, true}) {
    const auto model = student(plan, checkpointed ? FoldTraining::own : FoldTraining::everything, DType::f64);
    const CureLoss loss(fold_, teacher);
    const BackpropOptions options{.checkpoint_activations = checkpointed,
                                  .dropout = {.on = true, .seed = 5, .step = 3}};
    const auto value = [&] { return loss.lowered(pass(own.ctx, loss, *model, options)); };
    model->pool().zero_grads();
    value();
    const std::vector<double> grads = numbers(model->pool().trainable().grads);
    for (const TrainableSlot& slot : model->pool().trainable().slots) {
      const auto begin = static_cast<size_t>(slot.begin), count = static_cast<size_t>(slot.shape.count());
      EXPECT_LE(test::gradient_error(test::slot_of(model->pool(), slot.name).as<double>(),
                                     std::span(grads).subspan(begin, count), value, 1),
                2e-6)
          << slot.name << (checkpointed ? ", checkpointed" : "");
    }
  }
}

TEST_F(CureLossTest, OfNoWeightsIsTheTrainingsOwnToTheBit) {
  fold_.kl_weight = fold_.tail_weight = 0;
  const OwnContext own;
  Model teacher(settings(DType::f32));
  const auto model = student(test::six_layers(), FoldTraining::everything, DType::f32);
  const CureLoss loss(fold_, teacher);
  EXPECT_THAT(loss.parts(), testing::ElementsAre("nll"));
  model->pool().zero_grads();
  const CureLoss::Sums sums = pass(own.ctx, loss, *model, {});
  const std::vector<double> grads = numbers(model->pool().trainable().grads);
  model->pool().zero_grads();
  const LossSums plain = backprop_batch(own.ctx, *model, test::packed_batch(), {});
  model->bound_adapter()->finish_backward(own.ctx);
  EXPECT_EQ(loss.lowered(sums), plain["nll"]);
  EXPECT_EQ(sums.scored, plain["scored"]);
  EXPECT_EQ(grads, numbers(model->pool().trainable().grads));
}

TEST_F(CureLossTest, ATeacherLikeTheStudentAddsNothing) {
  const OwnContext own;
  Model teacher(settings(DType::f32));
  Model::Settings same = settings(DType::f32);
  same.train_base = true;
  Model student(same);
  const CureLoss loss(fold_, teacher);
  const CureLoss::Sums sums = pass(own.ctx, loss, student, {});
  ASSERT_EQ(sums.parts.size(), 3u);
  EXPECT_EQ(loss.lowered(sums), sums.parts[0]);
  EXPECT_EQ(sums.parts[1], 0);
  EXPECT_EQ(sums.parts[2], 0);
}

/// Five layers are left of six, and the last of the original is gone.
TEST_F(CureLossTest, ALayerIsComparedWithItsBlockAndTheLastOneWithTheEnd) {
  const FoldPlan plan =
      test::fold_plan({6, {5}, {test::group_of({0}), test::group_of({1, 2}), test::group_of({3, 4})}});
  const OwnContext own("reference");
  Model teacher(settings(DType::f64));
  const auto model = student(plan, FoldTraining::own, DType::f64);
  model->assemble(own.ctx);
  const CureLoss loss(fold_, teacher);
  const CureLoss::Sums sums = pass(own.ctx, loss, *model, {});
  const auto scope = own.ctx.scratch.scope();
  const PackedBatch batch = test::packed_batch();
  const BatchTokens in(own.ctx, batch, model->bound_adapter());
  const auto theirs = Teacher(teacher).states(own.ctx, in.tokens(), std::vector<int>{3, 4, 6});
  const auto ours = Teacher(*model).states(own.ctx, in.tokens(), std::vector<int>{3, 4, 5});
  double expected = 0;
  for (size_t i = 0; i < 3; ++i)
    for (const int32_t row : in.scored().rows) {
      const std::vector<double> s = numbers(ours[i].slice_rows(row, row + 1)),
                                t = numbers(theirs[i].slice_rows(row, row + 1));
      double square_s = 0, square_t = 0, distance = 0;
      for (const double x : s) square_s += x * x / 12;
      for (const double x : t) square_t += x * x / 12;
      for (size_t j = 0; j < s.size(); ++j) {
        const double e = s[j] / std::sqrt(square_s + 1e-5) - t[j] / std::sqrt(square_t + 1e-5);
        distance += e * e / 12;
      }
      expected += distance;
    }
  EXPECT_NEAR(sums.parts.at(2), expected, 1e-12 * expected);
  const double lowered = sums.parts[0] + 0.75 * 4 * sums.parts[1] + 0.6 * sums.parts[2];
  EXPECT_NEAR(loss.lowered(sums), lowered, 1e-12 * lowered);
  EXPECT_GT(sums.parts[1], 0);
}

TEST_F(CureLossTest, SumsDoNotShowHowTheRowsWereCut) {
  const OwnContext own("reference");
  Model teacher(settings(DType::f64));
  const auto model = student(test::six_layers(), FoldTraining::own, DType::f64);
  model->assemble(own.ctx);
  const CureLoss loss(fold_, teacher);
  const PackedDataset data(test::token_data(5, 9), 9, 3);
  const auto added = [&](int64_t at_once) {
    CureLoss::Sums sums;
    for (int64_t begin = 0; begin < data.rows(); begin += at_once) {
      std::vector<int64_t> rows;
      for (int64_t row = begin; row < std::min(begin + at_once, data.rows()); ++row) rows.push_back(row);
      sums = loss.add_gradients(own.ctx, *model, data.batch(rows, begin), {}, std::move(sums));
    }
    return sums;
  };
  const CureLoss::Sums whole = added(data.rows());
  EXPECT_EQ(whole.scored, 40);
  for (const int64_t at_once : {1, 2}) EXPECT_EQ(added(at_once).parts, whole.parts) << at_once << " rows at once";
}

TEST_F(CureLossTest, ComparesAsManyLayersAsThereAre) {
  fold_.tail_layers = 100;
  fold_.kl_weight = 0;
  const OwnContext own;
  Model teacher(settings(DType::f32));
  const auto model = student(test::six_layers(), FoldTraining::own, DType::f32);
  const CureLoss loss(fold_, teacher);
  EXPECT_THAT(loss.parts(), testing::ElementsAre("nll", "tail"));
  const double all = pass(own.ctx, loss, *model, {}).parts.at(1);
  fold_.tail_layers = 5;
  EXPECT_EQ(pass(own.ctx, CureLoss(fold_, teacher), *model, {}).parts.at(1), all);
  fold_.tail_layers = 1;
  EXPECT_LT(pass(own.ctx, CureLoss(fold_, teacher), *model, {}).parts.at(1), all);
}

TEST_F(CureLossTest, TakesTheScratchThatThePlanSays) {
  Model teacher(settings(DType::f32));
  const auto model = student(test::six_layers(), FoldTraining::own, DType::f32);
  const PackedBatch batch = widest_batch(2, 9, 9);
  for (const bool checkpointed : {false, true}) {
    const CureLoss loss(fold_, teacher);
    const int64_t bytes = plan_cure_bytes(loss, *model, 2, 9, 2, checkpointed);
    const Compute compute({.threads = 2}, bytes);
    model->assemble(compute);
    loss.add_gradients(compute, *model, batch, {.checkpoint_activations = checkpointed, .dropout = {.on = true}}, {});
    EXPECT_LE(compute.peak_bytes(), bytes);
    EXPECT_GT(compute.peak_bytes(), bytes / 2);
  }
}

}  // namespace
}  // namespace tessera
