// Stage "group": the plan is that of planning on the calibration rows' moments.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compress/json_numbers.h"
#include "compress/moments.h"
#include "compress/stages_bench.h"
#include "io/files.h"
#include "model/fold/plan_file.h"
#include "support/thread_ranks.h"

namespace tessera {
namespace {

class GroupStage : public test::StagesBench {
 protected:
  GroupStage() {
    fold_.selector = "bi";
    fold_.keep_head = 1;
    removed(Json::Array{Json(1)});
  }
  /// What the stages before it have left.
  void removed(Json::Array blocks, Json::Array halves = {}) {
    create_folder(folder_ / "compress");
    write_text_file(folder_ / "compress/removed.json",
                    Json::object().set("removed", std::move(blocks)).set("removed_halves", std::move(halves)).dump());
    write_text_file(folder_ / "compress/probe.json", R"({"bi": [0.5, 0.25]})");
  }
  FoldPlan run(const StageInputs& in) { return parse_fold_plan(find_stage("group").run(in).text, "plan"); }
  Json deltas() const {
    return Json::parse(read_text_file(folder_ / "compress/deltas.json"), "deltas.json").at("deltas");
  }
  void copy_block(int from, int to, double noise) {
    for (const auto part : {&BlockWeights::q, &BlockWeights::k, &BlockWeights::v, &BlockWeights::o, &BlockWeights::gate,
                            &BlockWeights::up, &BlockWeights::down}) {
      const auto source = weight(block(from).*part).as<float>(), target = weight(block(to).*part).as<float>();
      for (size_t i = 0; i < source.size(); ++i)
        target[i] = source[i] * static_cast<float>(1 + noise * ((i % 7) / 3.0 - 1));
    }
  }
  /// Without the code of planning: sum over linears, outputs and channels of sigma (W_child - W_parent)².
  double distance(const std::vector<InputMoments>& moments, int child, int parent) {
    double sum = 0;
    const InputMoments& sigma = moments[static_cast<size_t>(child)];
    const std::pair<int BlockWeights::*, const std::vector<double>*> linears[] = {
        {&BlockWeights::q, &sigma.attention}, {&BlockWeights::k, &sigma.attention},
        {&BlockWeights::v, &sigma.attention}, {&BlockWeights::o, &sigma.o},
        {&BlockWeights::gate, &sigma.mlp},    {&BlockWeights::up, &sigma.mlp},
        {&BlockWeights::down, &sigma.down}};
    for (const auto& [part, by_channel] : linears) {
      const auto own = weight(block(child).*part).as<float>(), other = weight(block(parent).*part).as<float>();
      for (size_t i = 0; i < own.size(); ++i)
        sum += (*by_channel)[i % by_channel->size()] * std::pow(static_cast<double>(own[i]) - other[i], 2);
    }
    return sum;
  }
  static FoldGroup own(std::vector<int64_t> blocks, int64_t parent) {
    return {.blocks = std::move(blocks), .parent = parent};
  }
};

TEST_F(GroupStage, CutsWhereTheMeasuredDistancesSayAndKeepsThem) {
  copy_block(3, 4, 0.1);
  const StageInputs in = inputs();
  const FoldPlan plan = run(in);
  const auto moments = calibration_moments(in, plan).blocks;
  const double to_three = distance(moments, 4, 3), to_four = distance(moments, 3, 4);
  EXPECT_LT(std::min(to_three, to_four), std::min(distance(moments, 2, 3), distance(moments, 3, 2)));
  const FoldGroup pair = own({3, 4}, to_three <= to_four ? 3 : 4);
  EXPECT_EQ(plan.groups, (std::vector{own({0}, 0), own({2}, 2), pair, own({5}, 5)}));
  EXPECT_EQ(plan.removed, std::vector<int64_t>{1});
  EXPECT_EQ(plan.base.fingerprint, model_.base_fingerprint());
  EXPECT_EQ(plan.child, (FoldChild{ChildLevel::norm, 0}));
  EXPECT_EQ(plan.history.at("bi").dump(), "[0.5,0.25]");
  EXPECT_EQ(plan.history.at("deltas").dump(), deltas().dump());

  const auto measured = deltas().items();
  ASSERT_EQ(measured.size(), 4u) << "pairs of neighbours, both ways";
  for (const Json& delta : measured) {
    const auto child = static_cast<int>(delta.at("child").as_integer());
    const double expected = distance(moments, child, static_cast<int>(delta.at("parent").as_integer()));
    EXPECT_NEAR(delta.at("delta").as_number(), expected, 1e-9 * expected);
    EXPECT_GT(delta.at("relative").as_number(), 0);
  }
}

TEST_F(GroupStage, PairsAnExactCopyAtNoDistance) {
  copy_block(2, 3, 0);
  const FoldPlan plan = run(inputs());
  EXPECT_EQ(plan.groups[1], own({2, 3}, 2)) << "ties go to the first";
  EXPECT_EQ(deltas().items().front().at("delta").as_number(), 0);
}

TEST_F(GroupStage, TakesTheRecipesKeys) {
  fold_.planning = "fixed";
  fold_.group = 3;
  fold_.parent = "wmean";
  fold_.child = "lora";
  fold_.child_rank = 5;
  const FoldPlan plan = run(inputs());
  ASSERT_EQ(plan.groups.size(), 3u);
  EXPECT_EQ(plan.groups[1], (FoldGroup{.blocks = {2, 3, 4}, .parent = {}, .values = GroupValues::wmean}));
  EXPECT_EQ(plan.child, (FoldChild{ChildLevel::lora, 5}));
  fold_.parent = "medoid";
  fold_.target = 0.1;
  EXPECT_THROW(run(inputs()), UserError);
}

TEST_F(GroupStage, BlocksThatLostDifferentHalvesDoNotShare) {
  copy_block(2, 3, 0);
  removed({Json(1)}, {Json::object().set("block", 2).set("part", "mlp")});
  const FoldPlan plan = run(inputs());
  EXPECT_EQ(plan.groups[1], own({2}, 2));
  EXPECT_EQ(plan.groups[2].blocks, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(plan.removed_halves, (std::vector{RemovedHalf{2, BlockHalf::mlp}}));
}

TEST_F(GroupStage, RanksFindTheSamePlan) {
  const std::string one = find_stage("group").run(inputs()).text;
  for (const int ranks : {2, 3})
    test::on_thread_ranks(ranks, [&](Communicator& world) {
      const test::TemporaryFolder folder;
      const test::OwnContext own;
      Model model(test::tiny_settings(folder.path(), {.layers = 6, .initializer_range = 0.3}));
      const StageOutcome found = find_stage("group").run(inputs(world, model, own.ctx));
      if (world.rank() == 0) {
        EXPECT_EQ(found.text, one);
      }
    });
}

}  // namespace
}  // namespace tessera
