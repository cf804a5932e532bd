// Steps of epochs, warm-up and AdamW's rates: exact where the rules say so, as they were under the first rules.

#include <gtest/gtest.h>

#include "support/tiny_model.h"
#include "train/optimizers/optimizer.h"
#include "train/steps.h"

namespace tessera {
namespace {

/// Rows of one document each.
PackedDataset rows_of(int64_t rows) {
  TokenData data;
  for (int64_t row = 0; row < rows; ++row) {
    data.tokens.insert(data.tokens.end(), {1, 2, 3, 4});
    data.scored.insert(data.scored.end(), {0, 1, 1, 1});
    data.ends.push_back(4 * (row + 1));
  }
  return {std::move(data), 4, 1};
}

int64_t steps(int64_t rows, int64_t batch, double epochs, Rules rules = kNewestRules) {
  TrainerConfig config;
  config.train.batch = batch;
  config.train.epochs = epochs;
  return total_steps(config, rows_of(rows), 1, rules);
}

TEST(Steps, OfEpochsAreExact) {
  EXPECT_EQ(steps(29, 7, 7), 29);
  EXPECT_EQ(steps(25, 1, 0.28), 7);
  EXPECT_EQ(steps(50, 3, 0.9), 15);
  EXPECT_EQ(steps(29, 7, 7e6), 29000000);
  EXPECT_EQ(steps(29, 7, 1), 5);
  EXPECT_EQ(steps(25, 1, 0.281), 8);
}

TEST(Steps, OfEpochsAreThoseOfTheFirstRulesInOldRuns) {
  EXPECT_EQ(steps(29, 7, 7, Rules::first), 30);
  EXPECT_EQ(steps(25, 1, 0.28, Rules::first), 8);
  EXPECT_EQ(steps(50, 3, 0.9, Rules::first), 16);
}

TEST(WarmUp, OfARatioIsExact) {
  OptimizerConfig config;
  config.warmup_ratio = 0.28;
  EXPECT_EQ(warmup_steps(config, 25), 7);
  EXPECT_EQ(learning_rate(config, 8, 25), config.lr);
  EXPECT_LT(learning_rate(config, 7, 25), config.lr);
  EXPECT_EQ(warmup_steps(config, 25, Rules::first), 8);
  EXPECT_EQ(learning_rate(config, 9, 25, Rules::first), config.lr);
  config.warmup_steps = 30;
  EXPECT_EQ(warmup_steps(config, 25), 25);
}

/// How far one step from 1 goes against a gradient of 0.5 at a rate of 1.
float first_step(OptimizerConfig config, Rules rules) {
  config.lr = 1;
  ParameterPool pool;
  pool.reserve("w", {.shape = {5}, .init = {Init::Kind::ones, 0, {}}, .weight_decay = false});
  pool.allocate(1, ParameterPool::Gradients::yes);
  FlatParams& params = pool.trainable();
  for (float& grad : params.grads.as<float>()) grad = 0.5f;
  const test::OwnContext own;
  make_optimizer(config, params.values.shape.count(), rules)->step(own.ctx, params, {1, 1.0f, 1.0f});
  return 1 - params.values.as<float>()[0];
}

TEST(AdamW, FirstStepGoesAsFarAsTheRateForEveryBeta) {
  for (const double beta2 : {0.9, 0.95, 0.999, 0.99999, 0.9999999}) {
    for (const double beta1 : {0.0, 0.9, 0.99999}) {
      OptimizerConfig config;
      config.beta1 = beta1;
      config.beta2 = beta2;
      EXPECT_NEAR(first_step(config, kNewestRules), 1, 1e-6) << beta1 << " " << beta2;
    }
  }
  OptimizerConfig config;
  config.beta2 = 0.9999999;
  EXPECT_NEAR(first_step(config, Rules::first), 0.916, 1e-3);
}

}  // namespace
}  // namespace tessera
