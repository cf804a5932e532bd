// Stage "share": the folded model that it leaves is the one that it measured, and loads as such.

#include <gmock/gmock.h>

#include <cmath>

#include "compress/calibration.h"
#include "compress/run_stages.h"
#include "compress/stages_bench.h"
#include "core/error.h"
#include "io/files.h"
#include "model/fold/plan_file.h"
#include "support/folds.h"

namespace tessera {
namespace {

using testing::HasSubstr;

class ShareStage : public test::StagesBench {
 protected:
  ShareStage() { create_folder(folder_ / "compress"); }

  StageOutcome share(FoldPlan plan) {
    plan.base.fingerprint = model_.base_fingerprint();
    write_fold_plan(folder_ / "compress/fold_plan.json", plan);
    return find_stage("share").run(inputs());
  }
  Tensor logits(Model& model) const { return test::logits_of(own_.ctx, model, {3, 1, 4, 1, 5, 9, 2, 6}); }
  double perplexity(Model& model, const BlockGates& gates = {}) {
    return std::exp(calibration_loss(inputs(), model, gates));
  }
  FoldState state(Model& model) const { return folded_base(model.sharing())->state(); }
  static FoldPlan plan(std::vector<int64_t> removed, std::vector<FoldGroup> groups, FoldChild child = {}) {
    return test::fold_plan({6, std::move(removed), std::move(groups), child});
  }
  static std::vector<FoldGroup> singles(const std::vector<int64_t>& blocks) {
    std::vector<FoldGroup> groups;
    for (const int64_t block : blocks) groups.push_back(test::group_of({block}));
    return groups;
  }
  std::string fault(const FoldPlan& plan) {
    try {
      share(plan);
    } catch (const UserError& error) {
      return error.what();
    }
    return "nothing was thrown";
  }
};

TEST_F(ShareStage, OfNothingRemovedAndNothingSharedIsTheOriginal) {
  const StageOutcome outcome = share(plan({}, singles({0, 1, 2, 3, 4, 5})));
  const auto model = loaded();
  EXPECT_TRUE(test::same_bytes(logits(*model), logits(model_)));
  EXPECT_EQ(state(*model).perplexity.at("shared"), state(*model).perplexity.at("original"));
  EXPECT_EQ(outcome.file.at("parameters_stored").as_integer(), outcome.file.at("parameters_original").as_integer());
  EXPECT_THAT(said_, testing::Contains(HasSubstr("nothing is removed and nothing shared")));
}

TEST_F(ShareStage, OfAnExactCopyLosesNothing) {
  for (size_t i = 0; i < model_.decoder().specs().size(); ++i) {  // block 3 is block 2 again, but for its norms
    const WeightSpec& spec = model_.decoder().specs()[i];
    if (spec.layer == 3 && spec.role == Role::norm) test::fill_normal(weight(static_cast<int>(i)), 5, 0.5);
    if (spec.layer != 2 || spec.role != Role::linear) continue;
    const auto from = weight(static_cast<int>(i)).as<float>();
    std::ranges::copy(from, weight(number_of("model.layers.3." + spec.type + ".weight")).as<float>().begin());
  }
  auto groups = singles({0, 1, 4, 5});
  groups.insert(groups.begin() + 2, test::group_of({2, 3}, 2));
  const StageOutcome outcome = share(plan({}, groups));
  EXPECT_TRUE(test::same_bytes(logits(*loaded()), logits(model_)));
  EXPECT_LT(outcome.file.at("parameters_stored").as_integer(), outcome.file.at("parameters_original").as_integer());
  int64_t stored = 0;
  const auto model = loaded();
  for (SlotId id = 0; id < model->pool().count(); ++id) stored += model->pool().values(id).shape.count();
  EXPECT_EQ(outcome.file.at("parameters_stored").as_integer(), stored);
}

TEST_F(ShareStage, OfRemovedBlocksAloneIsTheModelWithoutThem) {
  share(plan({1, 4}, singles({0, 2, 3, 5})));
  const auto model = loaded();
  const std::vector<double> gates = {1, 0, 1, 1, 0, 1};
  EXPECT_EQ(state(*model).name, "removed");
  EXPECT_EQ(state(*model).perplexity.at("removed"), perplexity(model_, {BlockGates::Of::blocks, gates}));
  EXPECT_EQ(perplexity(*model), state(*model).perplexity.at("removed"));
}

TEST_F(ShareStage, SavesTheModelThatItMeasuredAtEveryLevelAndParent) {
  std::map<ChildLevel, double> loss;
  for (const auto level : {ChildLevel::tie, ChildLevel::norm, ChildLevel::scale, ChildLevel::lora, ChildLevel::mos})
    for (const auto values : {GroupValues::own, GroupValues::mean, GroupValues::wmean}) {
      FoldGroup group{.blocks = {2, 3, 4}, .parent = {}, .values = values};
      if (values == GroupValues::own) group.parent = 3;
      const FoldChild child{level, level == ChildLevel::lora ? 16 : level == ChildLevel::mos ? 2 : 0};
      share(plan({1}, {test::group_of({0}), group, test::group_of({5})}, child));
      const auto model = loaded();
      EXPECT_EQ(state(*model).name, "shared");
      EXPECT_EQ(perplexity(*model), state(*model).perplexity.at("shared")) << name_of(level) << name_of(values);
      if (values == GroupValues::own) loss[level] = state(*model).perplexity.at("shared");
      if (level == ChildLevel::lora) {
        const double removed = state(*model).perplexity.at("removed");
        EXPECT_NEAR(state(*model).perplexity.at("shared"), removed, 1e-4 * removed) << "deltas of full rank";
      }
    }
  EXPECT_EQ(loss[ChildLevel::mos], loss[ChildLevel::scale]) << "a mos adds nothing at first";
  EXPECT_NE(loss[ChildLevel::scale], loss[ChildLevel::norm]);
}

TEST_F(ShareStage, ReadsTheFileOfItsOriginal) {
  const auto dense = test::dense_folder(folder_.path(), {.layers = 6});
  Model::Settings settings = test::stored_settings(dense);
  Model original(settings);
  FoldPlan folds = plan(
      {1},
      {test::group_of({0}), {.blocks = {2, 3}, .parent = {}, .values = GroupValues::mean}, test::group_of({4, 5}, 5)});
  write_fold_plan(folder_ / "compress/fold_plan.json", folds);
  find_stage("share").run(inputs(*world_, original, own_.ctx));
  const auto saved = SafetensorsReader::open(folder_ / "sharing/fold.safetensors");
  const auto file = SafetensorsReader::open_folder(dense);
  const auto linear = [](int layer) { return fmt::format("model.layers.{}.mlp.down_proj.weight", layer); };
  EXPECT_TRUE(test::same_bytes(saved.at("fold.group.2.mlp.down_proj.weight"), file.at(linear(5))));
  EXPECT_TRUE(test::same_bytes(saved.at("fold.layer.3.input_layernorm.weight"),
                               file.at("model.layers.4.input_layernorm.weight")));
  const ConstView mean = saved.at("fold.group.1.mlp.down_proj.weight");
  for (int64_t i = 0; i < mean.shape.count(); ++i)
    ASSERT_EQ(element(mean, i),
              static_cast<float>((element(file.at(linear(2)), i) + element(file.at(linear(3)), i)) / 2));
}

TEST_F(ShareStage, TakesAPlanOfTheUsersAndRefusesOneThatDoesNotFit) {
  fold_.plan = folder_ / "mine.json";
  write_fold_plan(fold_.plan, test::six_layers());
  find_stage("share").run(inputs());
  EXPECT_EQ(loaded()->config().num_hidden_layers, 5);
  FoldPlan other = test::six_layers();
  other.base.fingerprint = "9f31";
  write_fold_plan(fold_.plan, other);
  EXPECT_THROW(find_stage("share").run(inputs()), UserError);
  fold_.plan.clear();
  FoldPlan trained = test::six_layers();
  trained.groups[0].values = GroupValues::trained;
  EXPECT_THAT(fault(trained), HasSubstr("block 0 is to have trained weights, and there are none"));
}

TEST_F(ShareStage, DoesNotWriteOverWhatWasTrainedSince) {
  share(test::six_layers());
  share(test::six_layers());
  const auto model = loaded();
  folded_base(model->sharing())->set_state({"cured", {}});
  save_sharing(folder_ / "sharing", *model);
  EXPECT_THAT(fault(test::six_layers()), HasSubstr("a trained model lies in the place of the folded one"));
}

TEST_F(ShareStage, IsRunAgainWhenAFileOfItIsGone) {
  std::map<std::string, std::string> keys;
  for (const Stage& stage : stages())
    for (const std::string_view key : stage.keys) keys[std::string(key)] = "as it was";
  fold_.selector = "bi";
  fold_.remove = 0.17;
  fold_.keep_head = 1;
  fold_.until = "share";
  const auto how = [&] {
    std::map<std::string, StageReport::How> reports;
    StageInputs in = inputs();
    in.keys = keys;
    for (const StageReport& report : run_stages(in)) reports[report.name] = report.how;
    return reports;
  };
  using enum StageReport::How;
  how();
  const auto bytes = [&](const char* name) { return read_text_file(folder_ / name); };
  const std::string plan = bytes("compress/fold_plan.json"), numbers = bytes("sharing/fold.safetensors");
  EXPECT_EQ(how(),
            (std::map<std::string, StageReport::How>{
                {"probe", done_before}, {"remove", done_before}, {"group", done_before}, {"share", done_before}}));
  std::filesystem::remove(folder_ / "compress/shared/sharing.json");
  EXPECT_EQ(how()["share"], done_before) << "it is there a second time";
  for (const char* name : {"compress/shared/sharing.json", "sharing/sharing.json"})
    std::filesystem::remove(folder_ / name);
  EXPECT_EQ(how()["share"], run);
  std::filesystem::remove(folder_ / "compress/deltas.json");
  const auto again = how();
  EXPECT_EQ(again.at("group"), run);
  EXPECT_EQ(again.at("share"), done_before) << "the plan has the same bytes";
  EXPECT_EQ(bytes("compress/fold_plan.json"), plan);
  EXPECT_EQ(bytes("sharing/fold.safetensors"), numbers);
}

}  // namespace
}  // namespace tessera
