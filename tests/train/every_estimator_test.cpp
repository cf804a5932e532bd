// What is asked of every estimator, whichever are registered: plans, rows, bytes, losses that fall, a run that goes on
// as if it had not been left, ranks that hold the same bits. Run under 1, 2 and 3 ranks, too.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "train/estimator_training.h"

namespace tessera {
namespace {

using test::EstimatorTraining;
using testing::HasSubstr;

/// The ranks that the test program was started with. The world ends before main returns.
class World : public testing::Environment {
 public:
  void SetUp() override { world_ = world_communicator(); }
  void TearDown() override { world_.reset(); }
  Communicator& get() { return *world_; }

 private:
  std::unique_ptr<Communicator> world_;
};
World* const environment = static_cast<World*>(testing::AddGlobalTestEnvironment(new World));

/// An estimator, and what it trains.
struct Case {
  std::string estimator, method;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.estimator << " of " << c.method; }

std::vector<Case> all_cases() {
  std::vector<Case> all;
  for (const std::string& name : estimator_names())
    for (const char* method : {"none", "lora"}) all.push_back({name, method});
  return all;
}

class EveryEstimator : public testing::TestWithParam<Case> {
 protected:
  static EstimatorTraining training(const std::string& toml = "") {
    return EstimatorTraining(GetParam().estimator, GetParam().method, toml);
  }
};
/// Several ranks train together.
class EveryEstimatorUnderRanks : public EveryEstimator {
 protected:
  static Communicator& world() { return environment->get(); }
  static EstimatorTraining training() {
    return EstimatorTraining(GetParam().estimator, GetParam().method, "", &world());
  }
  static void expect_same_on_all_ranks(const std::string& values) {
    for (const auto& theirs : world().all_gather(std::as_bytes(std::span(values))))
      EXPECT_TRUE(std::memcmp(theirs.data(), values.data(), values.size()) == 0);
  }
};
const auto name_of_case = [](const auto& info) { return info.param.estimator + "_" + info.param.method; };
INSTANTIATE_TEST_SUITE_P(Registered, EveryEstimator, testing::ValuesIn(all_cases()), name_of_case);
INSTANTIATE_TEST_SUITE_P(Registered, EveryEstimatorUnderRanks, testing::ValuesIn(all_cases()), name_of_case);

TEST_P(EveryEstimator, ARunThatWasLeftGoesOnAsIfItHadNotBeen) {
  for (const OptimizerKind& optimizer : optimizer_kinds()) {
    EstimatorTraining own = training(fmt::format("[optimizer]\nname = \"{}\"\nmomentum = 0.9\n", optimizer.name));
    const std::string straight = own.train("straight");
    EXPECT_FALSE(own.outcome().stopped);
    const std::string half = own.train("left", 2);
    EXPECT_TRUE(own.outcome().stopped);
    EXPECT_EQ(own.outcome().meta.step, 2);
    EXPECT_NE(half, straight);
    EXPECT_EQ(own.train("left"), straight) << optimizer.name;
    EXPECT_EQ(own.outcome().meta.step, 4);
    EXPECT_EQ(own.outcome().meta.rows_consumed, 4 * rows_per_step(own.config(), 1));
  }
}

TEST_P(EveryEstimator, LowersTheLossOfWhatItTrainsOn) {
  EstimatorTraining own = training();
  own.config().train.steps = 40;
  own.train("run");
  EXPECT_LT(own.loss_after(), 0.97 * own.loss_before());
}

TEST_P(EveryEstimator, HasTheSameBitsInEveryRunAndForAnyNumberOfThreads) {
  EstimatorTraining own = training();
  const std::string values = own.train("run");
  EXPECT_EQ(own.train("again"), values);
  own.threads = 1;
  EXPECT_EQ(own.train("one thread"), values);
  own.config().optimizer.lr *= 2;
  EXPECT_NE(own.train("another rate"), values);
}

TEST_P(EveryEstimator, StepsTakeTheRowsThatAreTold) {
  EstimatorTraining own = training();
  const auto model = own.model();
  const test::OwnContext context;
  for (const StepReport& report : own.steps(*model, 2, context.ctx))
    EXPECT_EQ(report.rows, rows_per_step(own.config(), 1));
}

TEST_P(EveryEstimator, PlansWithACountedModelWhatAStepTakes) {
  EstimatorTraining own = training();
  const auto held = own.model(), counted = own.model(Memory::counted);
  const StepMemory plan = own.plan(*counted), again = own.plan(*held);
  EXPECT_EQ(plan.optimizer, again.optimizer);
  EXPECT_EQ(plan.activations, again.activations);
  EXPECT_EQ(plan.copies, again.copies);
  EXPECT_EQ(plan.handing_over, 0) << "alone";
  const int64_t scoring = plan_score_bytes(*counted, EstimatorTraining::kRows, EstimatorTraining::kLength, own.threads);
  own.train("run");  // in an arena of that size
  EXPECT_LE(static_cast<double>(std::max(plan.activations, scoring)), 1.1 * static_cast<double>(own.peak()));
}

TEST_P(EveryEstimator, SendsTheBytesThatItTellsAndAFewMore) {
  constexpr int64_t kSteps = 3, kFew = 64;  // losses, counts and stops
  EstimatorTraining own = training();
  const auto model = own.model();
  const test::OwnContext context;
  own.steps(*model, kSteps, context.ctx);
  const int64_t sent = own.world().traffic().total_bytes(), told = kSteps * own.estimator().wire_bytes(*model);
  EXPECT_GE(sent, told);
  EXPECT_LE(sent, told + kSteps * kFew);
}

TEST_P(EveryEstimator, HasMemoryForGradientsWhereItTakesThem) {
  EstimatorTraining own = training();
  EXPECT_EQ(own.model()->pool().trainable().grads.empty(), !own.estimator().has_gradients());
}

TEST_P(EveryEstimator, SaysHowAStepTakesLessMemory) {
  EstimatorTraining own = training();
  const LessMemory less = own.estimator().less_memory(own.config());
  EXPECT_THAT(less.way, testing::AnyOf("", HasSubstr("train."), HasSubstr(own.estimator().section() + ".")));
}

TEST_P(EveryEstimator, TakesARecipeThatLeavesItsKeysOut) { EXPECT_NO_THROW(training()); }

TEST_P(EveryEstimatorUnderRanks, HoldsTheSameBitsOnAllOfThem) {
  EstimatorTraining own = training();
  const std::string values = own.train("run");
  expect_same_on_all_ranks(values);
  EXPECT_EQ(own.outcome().meta.step, 4);
  EXPECT_EQ(own.outcome().meta.rows_consumed, 4 * rows_per_step(own.config(), world().size()));
}

TEST_P(EveryEstimatorUnderRanks, ARunThatWasLeftGoesOnAsIfItHadNotBeen) {
  EstimatorTraining own = training();
  const std::string straight = own.train("straight");
  EXPECT_NE(own.train("left", 2), straight);
  EXPECT_TRUE(own.outcome().stopped);
  EXPECT_EQ(own.train("left"), straight);
}

}  // namespace
}  // namespace tessera
