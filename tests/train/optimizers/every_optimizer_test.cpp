// What training asks of every optimizer, whichever are registered.

#include "train/optimizers/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "support/tiny_model.h"
#include "train/checkpoint.h"

namespace tessera {
namespace {

/// Slots of other shapes, one without decay, one with a step scale; gradients are drawn anew for each step.
struct Trained {
  explicit Trained(const OptimizerConfig& config) {
    pool.reserve("a", {.shape = {37, 11}, .init = {Init::Kind::normal, 1, {}}});
    pool.reserve("b", {.shape = {130}, .init = {Init::Kind::ones, 0, {}}, .weight_decay = false});
    pool.reserve("c", {.shape = {3, 300}, .init = {Init::Kind::normal, 1, {}}, .step_scale = 4});
    pool.allocate(4);
    optimizer = make_optimizer(config, params().values.shape.count());
  }
  FlatParams& params() { return pool.trainable(); }
  void step(int64_t number, float lr, int threads = 1, const char* backend = "cpu") {
    test::OwnContext own(backend);
    own.ctx.threads = threads;
    for (const TrainableSlot& slot : params().slots)
      test::fill_normal(test::slot_of(pool, slot.name, true), static_cast<uint32_t>(100 * number + slot.begin), 3);
    optimizer->step(own.ctx, params(), {number, lr, 0.25f});
  }
  std::string hash() { return values_hash(params()); }

  ParameterPool pool;
  std::unique_ptr<Optimizer> optimizer;
};

std::vector<float> states(Optimizer& optimizer) {
  std::vector<float> all;
  optimizer.visit_state([&](const std::string&, const TensorView& state) {
    for (const float value : state.as<float>()) all.push_back(value);
  });
  return all;
}

class EveryOptimizer : public testing::TestWithParam<OptimizerKind> {
 protected:
  EveryOptimizer() {
    config_.name = GetParam().name;
    config_.weight_decay = 0.1;
  }
  OptimizerConfig config_;
};

TEST_P(EveryOptimizer, GoesOnFromACheckpointWithTheSameBits) {
  const test::TemporaryFolder folder;
  Trained straight(config_), resumed(config_);
  for (int64_t step = 1; step <= 3; ++step) straight.step(step, 1e-2f);
  Retention retention;
  save_checkpoint(folder.path(), {}, straight.params(), *straight.optimizer, retention, false);
  load_checkpoint(checkpoint_file(folder.path(), 0), resumed.params(), *resumed.optimizer);
  EXPECT_EQ(resumed.hash(), straight.hash());
  for (int64_t step = 4; step <= 6; ++step) {
    straight.step(step, 1e-2f);
    resumed.step(step, 1e-2f);
    ASSERT_EQ(resumed.hash(), straight.hash()) << "step " << step;
  }
}

TEST_P(EveryOptimizer, HasTheSameBitsOnEveryBackendAndNumberOfThreads) {
  Trained one(config_);
  for (int64_t step = 1; step <= 3; ++step) one.step(step, 1e-2f, 1, "reference");
  for (const int threads : {1, 2, 3}) {
    Trained many(config_);
    for (int64_t step = 1; step <= 3; ++step) many.step(step, 1e-2f, threads);
    EXPECT_EQ(many.hash(), one.hash()) << threads;
  }
}

TEST_P(EveryOptimizer, StepsRunByRunWithTheBitsOfWholeSlots) {
  const test::OwnContext own;
  for (const int64_t most : {1000, 128, 7}) {
    Trained whole(config_), cut(config_);
    for (int64_t number = 1; number <= 3; ++number) {
      whole.step(number, 1e-2f);
      const auto power = [&](double beta) { return std::pow(beta, static_cast<double>(number)); };
      const RunStep step{1e-2f, 0.25f, {1 - power(config_.beta1), 1 - power(config_.beta2)}};
      const FlatParams &params = cut.params(), &given = whole.params();
      for (const TrainableSlot& slot : params.slots)
        for (int64_t begin = 0; begin < slot.shape.count(); begin += most) {
          const int64_t first = slot.begin + begin, last = slot.begin + std::min(begin + most, slot.shape.count());
          cut.optimizer->step_run(
              own.ctx, {slot, begin, params.values.slice_rows(first, last), given.grads.slice_rows(first, last)}, step);
        }
      ASSERT_EQ(cut.hash(), whole.hash()) << "step " << number << " by " << most;
    }
    EXPECT_EQ(states(*cut.optimizer), states(*whole.optimizer)) << most;
  }
}

TEST_P(EveryOptimizer, ThatIsLinearAddsAMultipleOfTheGradientAndKeepsNothing) {
  for (const double momentum : {0.0, 0.9}) {
    config_.momentum = momentum;
    config_.weight_decay = 0;
    Trained trained(config_);
    if (!trained.optimizer->is_linear()) continue;
    EXPECT_EQ(trained.optimizer->state_bytes(), 0);
    for (int64_t number = 1; number <= 2; ++number) {
      std::vector<float> before;
      for (const float value : trained.params().values.as<float>()) before.push_back(value);
      trained.step(number, 0.5f);
      for (const TrainableSlot& slot : trained.params().slots)
        for (int64_t i = slot.begin; i < slot.begin + slot.shape.count(); ++i)
          ASSERT_NEAR(element(trained.params().values, i) - static_cast<double>(before[static_cast<size_t>(i)]),
                      -0.5 * 0.25 * static_cast<double>(slot.step_scale) * element(trained.params().grads, i), 1e-5)
              << slot.name;
    }
  }
}

TEST_P(EveryOptimizer, ReadsKeysOfItsSection) {
  Fields fields;
  config_.visit(fields);
  for (const std::string_view key : GetParam().keys)
    EXPECT_TRUE(std::any_of(fields.list.begin(), fields.list.end(), [&](const Field& f) { return f.key == key; }))
        << key;
}

TEST_P(EveryOptimizer, FirstMovesAgainstTheGradient) {
  config_.weight_decay = 0;
  Trained trained(config_);
  std::vector<float> before;
  for (const float value : trained.params().values.as<float>()) before.push_back(value);
  trained.step(1, 1e-2f);
  for (const TrainableSlot& slot : trained.params().slots)
    for (int64_t i = slot.begin; i < slot.begin + slot.shape.count(); ++i) {
      const double step = element(trained.params().values, i) - static_cast<double>(before[static_cast<size_t>(i)]);
      ASSERT_LT(step * element(trained.params().grads, i), 0) << slot.name << " " << i - slot.begin;
    }
}

TEST_P(EveryOptimizer, StandsStillAtARateOfZeroAndKeepsItsState) {
  Trained still(config_);
  const std::string before = still.hash();
  still.step(1, 0);
  EXPECT_EQ(still.hash(), before);
}

TEST_P(EveryOptimizer, DecaysTowardsZeroAllButTheSlotsThatDoNotDecay) {
  Trained decayed(config_);
  std::vector<float> before;
  for (const float value : decayed.params().values.as<float>()) before.push_back(value);
  const test::OwnContext own;
  decayed.pool.zero_grads();
  decayed.optimizer->step(own.ctx, decayed.params(), {1, 0.5f, 1});
  for (const TrainableSlot& slot : decayed.params().slots)
    for (int64_t i = slot.begin; i < slot.begin + slot.shape.count(); ++i) {
      const auto start = static_cast<double>(before[static_cast<size_t>(i)]);
      ASSERT_NEAR(element(decayed.params().values, i), slot.name == "b" ? start : 0.95 * start, 1e-6 * std::abs(start));
    }
}

TEST_P(EveryOptimizer, CountsItsStateWithoutBeingMade) {
  for (const double momentum : {0.0, 0.9}) {
    config_.momentum = momentum;
    EXPECT_EQ(optimizer_state_bytes(config_, 1000), make_optimizer(config_, 1000)->state_bytes());
  }
}

TEST_P(EveryOptimizer, IsGivenUpForOneThatKeepsLessWhereThereIsOne) {
  const int64_t own = optimizer_state_bytes(config_, 1000);
  int64_t least = own;
  for (const OptimizerKind& other : optimizer_kinds()) {
    OptimizerConfig config = config_;
    config.name = other.name;
    least = std::min(least, optimizer_state_bytes(config, 1000));
  }
  const OptimizerKind* smaller = smaller_optimizer(config_);
  ASSERT_EQ(smaller != nullptr, least < own);
  if (!smaller) return;
  config_.name = smaller->name;
  EXPECT_EQ(optimizer_state_bytes(config_, 1000), least);
}

TEST_P(EveryOptimizer, AddsGradientsOnlyWhenItIsLinearAndNothingDecays) {
  for (const double momentum : {0.0, 0.9})
    for (const double decay : {0.0, 0.1}) {
      config_.momentum = momentum;
      config_.weight_decay = decay;
      EXPECT_EQ(adds_gradients_only(config_), decay == 0 && make_optimizer(config_, 10)->is_linear());
    }
  config_.name = linear_optimizer().name;
  config_.momentum = config_.weight_decay = 0;
  EXPECT_TRUE(adds_gradients_only(config_));
}

TEST_P(EveryOptimizer, ReadsTheStepsOfPiecesWhenItIsAdaptive) {
  config_.weight_decay = 0;
  const auto first_values = [&](const std::vector<StepPiece>& pieces) {
    ParameterPool pool;
    pool.reserve("a", {.shape = {64}, .init = {Init::Kind::ones, 0, {}}, .adaptive_steps = pieces});
    pool.allocate(4);
    test::OwnContext own;
    test::fill_normal(pool.trainable().grads, 7, 3);
    make_optimizer(config_, 64)->step(own.ctx, pool.trainable(), {1, 1e-2f, 1});
    return values_hash(pool.trainable());
  };
  EXPECT_EQ(first_values({{32, 1}, {64, 2}}) != first_values({}), GetParam().is_adaptive);
}

TEST_P(EveryOptimizer, NamesEachPartOfItsState) {
  Trained trained(config_);
  std::set<std::string> names;
  trained.optimizer->visit_state([&](const std::string& name, TensorView state) {
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_EQ(state.shape, trained.params().values.shape);
  });
}

INSTANTIATE_TEST_SUITE_P(Registered, EveryOptimizer, testing::ValuesIn(optimizer_kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace tessera
