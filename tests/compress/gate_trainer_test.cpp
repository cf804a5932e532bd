// Gate training on a frozen model: its gradients, what it leaves alone, going on, and what it finds that scores of
// single blocks do not.

#include "compress/gate_backprop.h"

#include <gmock/gmock.h>

#include <limits>

#include "compress/calibration.h"
#include "compress/coupled_blocks.h"
#include "compress/json_numbers.h"
#include "compress/probe.h"
#include "compress/stages_bench.h"
#include "core/error.h"
#include "io/files.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

using GateTraining = test::StagesBench;
using Coupling = test::CoupledBlocks;

BackpropGates trained(const StageInputs& in, const GateUnits& units, int64_t steps) {
  BackpropGates trainer(in, units, GateState::open(units.count()));
  for (int64_t step = 0; step < steps; ++step) trainer.take_step();
  return trainer;
}

TEST_F(GateTraining, LeavesTheModelAsItIsAndProtectedGatesOpen) {
  const std::vector<int32_t> ids = {3, 14, 1, 5, 9};
  const Tensor before = test::logits_of(own_.ctx, model_, ids);
  const StageInputs in = inputs();
  const GateUnits of = units();
  const BackpropGates trainer = trained(in, of, 12);
  EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, model_, ids).view(), before.view()));
  EXPECT_EQ(model_.pool().trainable_count(), 0);
  const std::vector<double> gates = trainer.gates();
  EXPECT_EQ(gates.front(), 1);
  EXPECT_EQ(gates.back(), 1);
  EXPECT_EQ(trainer.state().theta.front(), 1);
  for (size_t i = 1; i + 1 < gates.size(); ++i) EXPECT_NE(trainer.state().theta[i], 1) << i;
}

TEST_F(GateTraining, GoesOnWithTheSameBits) {
  fold_.gate_lr = 0.1;
  const StageInputs in = inputs();
  const GateUnits of = units();
  const BackpropGates whole = trained(in, of, 20);
  for (const int64_t step : {1, 10, 13}) {
    const std::string text = to_text(trained(in, of, step).state(), {});
    BackpropGates rest(in, of, parse_gates(text, "state").state);
    while (!rest.is_done()) rest.take_step();
    EXPECT_EQ(to_text(rest.state(), {}), to_text(whole.state(), {})) << "from step " << step;
  }
}

TEST_F(GateTraining, StopsAtANumberThatIsNotFiniteNamingStepAndBlock) {
  at(block(3).down, 0, 0) = std::numeric_limits<float>::quiet_NaN();
  const StageInputs in = inputs();
  const GateUnits of = units();
  BackpropGates trainer(in, of, GateState::open(of.count()));
  try {
    trainer.take_step();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("step 1 of the gates"), HasSubstr("block 3 gives a number")));
  }
  EXPECT_EQ(trainer.state().step, 0);
  EXPECT_EQ(trainer.state().theta, of.ones());
}

TEST_F(GateTraining, ABlockThatAddsNothingFallsFirst) {
  clear(block(3).o);
  clear(block(3).down);
  fold_.remove = 0.17;
  fold_.gate_lr = 0.03;
  fold_.gate_steps = 120;
  for (float& x : weight(number_of("lm_head.weight")).as<float>()) x *= 4;  // choices that are sure
  write_own_choices(60);
  const StageInputs in = inputs();
  const GateUnits of = units();
  const BackpropGates trainer = trained(in, of, fold_.gate_steps);
  const Probe probe = probe_blocks(in);
  EXPECT_NEAR(probe.influence[3], 0, 1e-12);
  const auto order =
      order_by_gates({.gate = trainer.gates(), .theta = trainer.state().theta, .bi = probe.influence, .falls = {}}, {});
  EXPECT_EQ(order.front(), 3);
  ASSERT_FALSE(trainer.state().fallen.empty());
  EXPECT_EQ(trainer.state().fallen.front().gate, 3);
}

TEST_F(GateTraining, TheTargetIsWhatTheRoundedShareLeaves) {
  const auto target = [&](double remove, const char* gates) {
    fold_.remove = remove;
    fold_.gates = gates;
    return kept_cost(units(), fold_, "fold");
  };
  EXPECT_DOUBLE_EQ(target(0.33, "block"), 4.0 / 6) << "two of six blocks";
  EXPECT_DOUBLE_EQ(target(0.2, "block"), 5.0 / 6) << "one";
  EXPECT_DOUBLE_EQ(target(0.2, "sublayer"), 0.8);
}

/// Of the stage: its warning names what can be turned.
TEST_F(GateTraining, AnUnmetConstraintIsToldWithTheReasonThatHolds) {
  fold_.remove = 0.33;
  create_folder(folder_ / "compress");
  const auto warning = [&](int64_t steps, double rate, double weight) -> std::string {
    fold_.gate_steps = steps;
    fold_.gate_lr = rate;
    fold_.gate_weight = weight;
    StageInputs in = inputs();
    for (const Stage& stage : stages())
      for (const std::string& key : stage.keys) in.keys[key] = fmt::format("{} {} {}", steps, rate, weight);
    write_text_file(in.folder / "probe.json", find_stage("probe").run(in).file.dump());
    std::filesystem::remove(in.folder / "gates-state.json");
    said_.clear();
    find_stage("gates").run(in);
    for (const std::string& line : said_)
      if (line.find("constraint not met") != std::string::npos) return line;
    return "";
  };
  EXPECT_THAT(warning(10, 0.03, 10),
              HasSubstr(": 10 steps of fold.gate_lr = 0.03 move a gate by about 0.3 at most, and 2 are needed; raise "
                        "fold.gate_steps to 67, or fold.gate_lr"));
  EXPECT_THAT(warning(20, 0.1, 1e-6), testing::EndsWith("; raise fold.gate_weight or fold.gate_steps"));
  fold_.gate_estimator = "spsa";  // whose steps are Adam's, too
  EXPECT_THAT(warning(10, 0.03, 10), HasSubstr(": 10 steps of fold.gate_lr = 0.03 move a gate by about 0.3 at most"));
}

/// With gates that had a single step, and block influences that are made up.
TEST_F(Coupling, ABetterChoiceOfBlockInfluenceIsTold) {
  fold_.remove = 0.33;
  fold_.gate_steps = 1;
  create_folder(folder_ / "compress");
  const auto warns = [&](const std::vector<double>& influence) {
    StageInputs in = inputs();
    for (const Stage& stage : stages())
      for (const std::string& key : stage.keys) in.keys[key] = "as it is";
    Json probe = find_stage("probe").run(in).file;
    probe.set("bi", array_of(influence));
    write_text_file(in.folder / "probe.json", probe.dump());
    std::filesystem::remove(in.folder / "gates-state.json");
    said_.clear();
    const StageOutcome outcome = find_stage("gates").run(in);
    const Json& losses = outcome.file.at("losses");
    const bool is_better = losses.at("bi").as_number() < losses.at("hard").as_number();
    const bool is_told = std::ranges::any_of(
        said_, [](const std::string& line) { return line.find("block influence removes has") != std::string::npos; });
    EXPECT_EQ(is_told, is_better);
    return is_told;
  };
  EXPECT_TRUE(warns({9, 9, 0, 0, 9, 9})) << "the pair that does nothing";
  EXPECT_FALSE(warns({9, 0, 0, 9, 9, 9})) << "one of it";
}

TEST_F(Coupling, JointGatesDropThePairThatSingleScoresKeep) {
  fold_.remove = 0.33;
  fold_.gate_lr = 0.03;
  fold_.gate_steps = 200;
  fold_.gate_batch = 8;
  const StageInputs in = inputs();
  const GateUnits of = units();
  const Probe probe = probe_blocks(in);
  const auto by_influence = order_by_influence(probe.influence, {});
  EXPECT_THAT((std::vector<int64_t>{by_influence[2], by_influence[3]}), testing::UnorderedElementsAre(2, 3));
  const double original = calibration_loss(in, in.model, of.gates(of.ones()));
  std::vector<double> alone;
  for (int64_t l = 1; l < 5; ++l)
    alone.push_back(calibration_loss(in, in.model, of.gates(of.without({.blocks = {l}, .halves = {}}))));
  EXPECT_GT(std::min(alone[1], alone[2]), std::max(alone[0], alone[3])) << "either of them alone is worth most";
  const double without_pair = calibration_loss(in, in.model, of.gates(of.without({.blocks = {2, 3}, .halves = {}})));
  EXPECT_LT(without_pair, original + 0.2);

  const BackpropGates trainer = trained(in, of, fold_.gate_steps);
  const auto order =
      order_by_gates({.gate = trainer.gates(), .theta = trainer.state().theta, .bi = probe.influence, .falls = {}}, {});
  EXPECT_THAT(remove_blocks(order, 2).blocks, ElementsAre(2, 3));
  EXPECT_LE(trainer.constraint().kept(trainer.gates()), trainer.constraint().target() + 0.01);
}

}  // namespace
}  // namespace tessera
