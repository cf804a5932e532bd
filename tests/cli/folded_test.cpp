// A folded model as the base of every job: training, resuming, ranks, generation, evaluation, export.

#include <gmock/gmock.h>

#include <cstring>

#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/fold/plan_file.h"
#include "support/folds.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::HasSubstr;
using testing::Not;

class FoldedRuns : public Workbench {
 protected:
  FoldedRuns() {
    replace("base/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 6");
    Model::Settings settings;
    settings.model.path = path() / "base";
    settings.model.init = "random";
    settings.max_position = 8;
    fold_by({.plan = six_layers({ChildLevel::lora, 2}), .state = {"shared", {{"original", 17.75}, {"shared", 41.25}}}},
            settings);
    Model model(settings);
    save_sharing(path() / "folded", model);
  }
  Words folded(const Words& more = {}) const {
    return joined({"full.toml", "sharing.method=fold", "sharing.load=folded", "train.steps=12", "checkpoint.every=4"},
                  more);
  }
  std::string bytes(const std::string& file) const { return read_file(*this / file); }
};

TEST_F(FoldedRuns, TrainsOnAndGoesOnAfterAStopWithTheSameBits) {
  const std::string plan = expect_done(trainer(folded({"--check"}))).out;
  EXPECT_THAT(plan, HasSubstr("fold: 5 of 6 layers are left and read 3 blocks"));
  EXPECT_THAT(plan, HasSubstr("a block that several layers read is trained by the sum of their gradients"));
  expect_done(trainer(folded({"run.dir=whole"})));
  expect_done(trainer(folded({"run.dir=rest", "run.resume=whole/checkpoints/step-00000008.h5"})));
  EXPECT_EQ(bytes("rest/sharing/fold.safetensors"), bytes("whole/sharing/fold.safetensors"));
  EXPECT_NE(bytes("whole/sharing/fold.safetensors"), bytes("folded/fold.safetensors"));
  EXPECT_EQ(bytes("whole/sharing/fold_plan.json"), bytes("folded/fold_plan.json"));
  const Json saved = read_configuration(*this / "whole" / "sharing" / "sharing.json");
  EXPECT_EQ(saved.at("sharing").at("state").as_string(), "cured");
  EXPECT_FALSE(fs::exists(*this / "whole" / "model"));
}

TEST_F(FoldedRuns, WarnsBeforeItIsUsedUncured) {
  const std::string warning =
      "warning: this model was cut and not cured (perplexity of its calibration rows 41.2, original 17.8): train it further";
  const Words evaluate = folded({"job=evaluate", "run.dir=used"}),
              generate = folded(
                  {"job=generate", "run.dir=used", "generate.prompts=[\"copy ba =\"]", "generate.max_new_tokens=4"});
  EXPECT_THAT(expect_done(trainer(evaluate)).err, HasSubstr(warning));
  EXPECT_THAT(expect_done(trainer(generate)).err, HasSubstr(warning));
  expect_done(trainer(folded({"run.dir=used"})));
  EXPECT_THAT(expect_done(trainer(evaluate)).err, Not(HasSubstr("not cured")));
}

TEST_F(FoldedRuns, IsTheBaseOfAnAdapterUnderTwoRanks) {
  TESSERA_NEEDS_MPI();
  const Words lora =
      joined({"lora.toml", "sharing.method=fold", "sharing.load=folded", "train.steps=6"}, {"adapter.dropout=0"});
  expect_done(trainer(joined(lora, {"run.dir=one"})));
  expect_done(ranks(2, joined(lora, {"run.dir=two"})));
  const double one = metrics("one").back().at("loss").as_number(), two = metrics("two").back().at("loss").as_number();
  EXPECT_NEAR(one, two, 1e-5 * one);
  expect_done(ranks(2, folded({"run.dir=all", "train.steps=6"})));
  expect_done(trainer(folded({"run.dir=alone", "train.steps=6"})));
  EXPECT_NEAR(metrics("all").back().at("loss").as_number(), metrics("alone").back().at("loss").as_number(), 1e-4);
}

TEST_F(FoldedRuns, ExportsADenseModelAndSaysHowMuchLargerItIs) {
  const Words words = folded({"job=export", "run.dir=out", "export.merged=true"});
  EXPECT_THAT(expect_done(trainer(words)).out, HasSubstr("x as many numbers as the shared one"));
  EXPECT_EQ(read_configuration(*this / "out" / "model" / "config.json").at("num_hidden_layers").as_integer(), 5);
  const Words dense = {"full.toml", "model.path=out/model", "model.init=pretrained", "job=evaluate", "run.dir=dense"};
  const auto loss = [&](const Words& of) {
    const std::string out = expect_done(trainer(of)).out;
    return Json::parse(out.substr(out.find('{')), "evaluate").at("loss").as_number();
  };
  EXPECT_NEAR(loss(dense), loss(folded({"job=evaluate", "run.dir=other"})), 1e-5);
}

/// Blocks that lost their attention or their MLP, from the plan to the dense model.
TEST_F(FoldedRuns, OfHalfBlocksIsStoredTrainedGeneratesAndIsExported) {
  FoldPlan plan = halved_layers({ChildLevel::scale, 0});
  write_fold_plan(path() / "halves.json", plan);
  expect_done(trainer({"lora.toml", "job=compress", "run.dir=made", "fold.plan=halves.json", "fold.calibration_rows=4",
                       "fold.cure=none"}));
  const Json share = read_configuration(*this / "made/compress/share.json"),
             saved = read_configuration(*this / "made/sharing/sharing.json");
  EXPECT_EQ(saved.at("parameters").as_integer(), share.at("parameters_stored").as_integer());
  const std::string file = bytes("made/sharing/fold.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof header);
  EXPECT_EQ(file.size(), 8 + header + 4 * static_cast<size_t>(share.at("parameters_stored").as_integer()));

  const auto from = [&](const Words& more) {
    return trainer(joined({"full.toml", "sharing.method=fold", "sharing.load=made"}, more));
  };
  const auto loss = [&](const test::Ended& ended) {
    return Json::parse(ended.out.substr(ended.out.find('{')), "evaluate").at("loss").as_number();
  };
  const double folded_loss = loss(expect_done(from({"job=evaluate", "run.dir=looked"})));
  EXPECT_FALSE(expect_done(from({"job=generate", "run.dir=looked", "generate.prompts=[\"copy ba =\"]",
                                 "generate.max_new_tokens=4"}))
                   .out.empty());
  expect_done(from({"job=export", "run.dir=out", "export.merged=true"}));
  const auto dense = SafetensorsReader::open(path() / "out/model/model.safetensors");
  for (const char* zeros : {"1.mlp.down_proj", "2.mlp.down_proj", "3.self_attn.o_proj"})
    for (const float x : dense.at(fmt::format("model.layers.{}.weight", zeros)).as<float>()) ASSERT_EQ(x, 0) << zeros;
  const Words exported = {"full.toml", "model.path=out/model", "model.init=pretrained", "job=evaluate",
                          "run.dir=dense"};
  EXPECT_NEAR(loss(expect_done(trainer(exported))), folded_loss, 1e-6);

  expect_done(from({"run.dir=whole", "train.steps=6", "checkpoint.every=3"}));
  expect_done(from({"run.dir=rest", "train.steps=6", "run.resume=whole/checkpoints/step-00000003.h5"}));
  EXPECT_EQ(bytes("rest/sharing/fold.safetensors"), bytes("whole/sharing/fold.safetensors"));
  EXPECT_LT(metrics("whole").back().at("loss").as_number(), folded_loss);
}

TEST_F(FoldedRuns, IsNamedWhereItIsMissing) {
  EXPECT_THAT(fault({"full.toml", "sharing.method=fold"}),
              HasSubstr("fold: name a folded model by sharing.load, or make one with job = \"compress\""));
}

}  // namespace
}  // namespace tessera
