// What a run whose log is its checkpoint knows again of its evaluations and times: from figures.json,
// else from metrics.jsonl.

#include "train/spsa/told_metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "score/evaluation.h"
#include "support/paths.h"
#include "support/scored.h"
#include "train/run_folder.h"
#include "train/spsa/figures.h"

namespace tessera {
namespace {

class ToldMetricsOf : public testing::Test {
 protected:
  void tell_step(int64_t step, double loss) {
    lines_.append(Json::object().set("step", step).set("split", "train").set("loss", loss).set("step_seconds", 0.5));
  }
  /// An evaluation whose loss is the seed's.
  void tell_evaluation(int64_t step, int seed, bool before = false) {
    Json line = evaluation_line(step, test::some_sums(seed), objective_);
    lines_.append(before ? line.set("before", true) : line);
  }
  ToldMetrics read(int64_t last_step) const { return read_told_metrics(folder_ / "m", last_step, objective_); }
  double loss_of(int seed) const { return objective_.mean(test::some_sums(seed)); }

  const Objective& objective_ = objective_of("tokens");
  test::TemporaryFolder folder_;
  MetricsFile lines_{folder_ / "m"};
};

TEST_F(ToldMetricsOf, ARunAreItsTimesAndItsFirstAndLastEvaluation) {
  tell_evaluation(0, 1);
  for (const int64_t step : {1, 2, 3}) tell_step(step, 4.0 - static_cast<double>(step));
  tell_evaluation(3, 2);
  const ToldMetrics told = read(3);
  EXPECT_EQ(told.last_step, 3);
  EXPECT_EQ(told.last_evaluation, 3);
  EXPECT_EQ(told.meta.seconds, 1.5);
  EXPECT_EQ(told.meta.last_loss, 1.0);
  EXPECT_NEAR(objective_.mean(told.meta.first_eval), loss_of(1), 1e-12);
  EXPECT_NEAR(objective_.mean(told.meta.last_eval), loss_of(2), 1e-12);
  EXPECT_NEAR(told.meta.best_loss, std::min(loss_of(1), loss_of(2)), 1e-12);
}

TEST_F(ToldMetricsOf, LaterStepsThanTheLogHasDoNotCount) {
  tell_evaluation(0, 1);
  for (const int64_t step : {1, 2, 3}) tell_step(step, 1);
  tell_evaluation(3, 2);
  const ToldMetrics told = read(2);
  EXPECT_EQ(told.last_step, 2);
  EXPECT_EQ(told.last_evaluation, 0);
  EXPECT_NEAR(told.meta.best_loss, loss_of(1), 1e-12);
}

TEST_F(ToldMetricsOf, OtherHeldOutRowsBeginAnew) {
  tell_evaluation(0, 2);
  tell_step(1, 1);
  tell_evaluation(1, 1, true);
  const ToldMetrics told = read(1);
  EXPECT_NEAR(objective_.mean(told.meta.first_eval), loss_of(1), 1e-12);
  EXPECT_NEAR(told.meta.best_loss, loss_of(1), 1e-12);
}

TEST_F(ToldMetricsOf, NothingAreNone) {
  const ToldMetrics told = read(9);
  EXPECT_EQ(told.last_step, 0);
  EXPECT_EQ(told.last_evaluation, -1);
  EXPECT_FALSE(told.meta.first_eval.has_scored());
}

class Figures : public testing::Test {
 protected:
  Figures() {
    kept_.step = 8;
    kept_.rows_consumed = 96;
    kept_.eval_set = "rows of that hash";
    kept_.evaluated_at = 6;
    kept_.best_loss = 1.0 / 3;
    kept_.first_eval = test::some_sums(1);
    kept_.last_eval = test::some_sums(2);
    keep_figures(folder_.path(), kept_);
  }
  CheckpointMeta kept_;
  test::TemporaryFolder folder_;
};

TEST_F(Figures, AreReadBackToTheBit) {
  const CheckpointMeta read = read_figures(folder_.path(), 8).value();
  EXPECT_EQ(figures_of(read).dump(), figures_of(kept_).dump());
  EXPECT_EQ(read.best_loss, 1.0 / 3);
  test::expect_same_sums(read.last_eval, kept_.last_eval);
}

TEST_F(Figures, OfStepsThatTheLogHasLostAreForgotten) {
  const CheckpointMeta read = read_figures(folder_.path(), 5).value();
  EXPECT_EQ(read.step, 0);
  EXPECT_EQ(read.rows_consumed, 0);
  EXPECT_EQ(read.evaluated_at, -1);
  EXPECT_FALSE(read.last_eval.has_scored());
  test::expect_same_sums(read.first_eval, kept_.first_eval);
}

TEST_F(Figures, ThatAreAbsentOrDamagedAreMeasuredAgain) {
  test::write_file(folder_ / "figures.json", "{\"step\": 8");
  EXPECT_FALSE(read_figures(folder_.path(), 8));
  std::filesystem::remove(folder_ / "figures.json");
  EXPECT_FALSE(read_figures(folder_.path(), 8));
}

}  // namespace
}  // namespace tessera
