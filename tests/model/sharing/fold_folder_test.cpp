// Folded models as folders: saved and read back, exported, refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "io/json_file.h"
#include "model/adapter_io.h"
#include "model/fold/plan_file.h"
#include "model/sharing/fold_starts.h"
#include "support/folds.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::OwnContext;
using testing::HasSubstr;

const std::vector<int32_t> kText = {3, 14, 1, 5, 9, 2, 6, 5};

class FoldedFolder : public testing::Test {
 protected:
  FoldedFolder() : dense_(test::dense_folder(folder_.path(), {.layers = 6})) {}

  fs::path saved() const { return folder_ / "saved"; }
  static AdapterConfig lora() {
    AdapterConfig config;
    config.method = "lora";
    config.rank = 2;
    config.dropout = 0.1;
    return config;
  }
  std::unique_ptr<Model> make(FoldMaking making, bool train = true) {
    Model::Settings settings = test::stored_settings(dense_);
    settings.train_base = train;
    test::fold_by(std::move(making), settings);
    return std::make_unique<Model>(settings);
  }
  /// Of level scale or above, all of whose own numbers were moved, saved.
  std::unique_ptr<Model> saved_model(FoldMaking making) {
    auto model = make(std::move(making));
    test::fill_all_normal(model->pool(), 5, 0.3);
    save_sharing(saved(), *model);
    return model;
  }
  Model::Settings load_settings(bool train = false) {
    Model::Settings settings = test::stored_settings(dense_);
    settings.sharing.method = "fold";
    settings.sharing.load = saved();
    settings.train_base = train;
    return settings;
  }
  Tensor logits(Model& model) {
    model.assemble(own_.ctx);
    return test::logits_of(own_.ctx, model, kText);
  }
  std::string fault(const Model::Settings& settings) {
    try {
      Model model(settings);
    } catch (const UserError& error) {
      return error.message();
    }
    return "nothing was thrown";
  }
  Json description() { return read_configuration(saved() / "sharing.json"); }
  void replace(const fs::path& file, const std::string& text, const std::string& other) {
    std::string all = test::read_file(file);
    const size_t at = all.find(text);
    ASSERT_NE(at, std::string::npos) << all;
    test::write_file(file, all.replace(at, text.size(), other));
  }

  test::TemporaryFolder folder_;
  OwnContext own_;
  fs::path dense_;
};

TEST_F(FoldedFolder, ReadBackComputesTheSameBits) {
  for (const ChildLevel level :
       {ChildLevel::tie, ChildLevel::norm, ChildLevel::scale, ChildLevel::lora, ChildLevel::mos})
    for (const bool cured : {false, true}) {
      FoldMaking making{.plan = test::six_layers({level, level >= ChildLevel::lora ? 2 : 0}), .state = {"cured"}};
      if (cured) making.cure = lora();
      const auto model = saved_model(making);
      Model frozen(load_settings()), again(load_settings(true));
      EXPECT_TRUE(test::same_bytes(logits(frozen), logits(*model))) << name_of(level) << cured;
      EXPECT_TRUE(test::same_bytes(logits(again), logits(*model))) << name_of(level) << cured;
      EXPECT_EQ(frozen.pool().trainable_count(), 0);
      EXPECT_EQ(again.pool().trainable_count(), model->pool().trainable_count());
      EXPECT_EQ(frozen.sharing().descriptor().dump(), model->sharing().descriptor().dump());
      save_sharing(folder_ / "again", frozen);
      for (const char* name : {"sharing.json", "fold_plan.json", "fold.safetensors"})
        EXPECT_EQ(test::read_file(folder_ / "again" / name), test::read_file(saved() / name)) << name;
      fs::remove_all(folder_ / "again");
      fs::remove_all(saved());
    }
}

TEST_F(FoldedFolder, OfAFrozenModelHoldsTheBasesTensorsEachOnceInTheirType) {
  const auto model = make({.plan = test::six_layers(), .state = {}}, false);
  save_sharing(saved(), *model);
  const auto reader = SafetensorsReader::open(saved() / "fold.safetensors");
  int64_t bytes = 0;
  for (const std::string& name : reader.names()) {
    EXPECT_THAT(name, testing::Not(testing::StartsWith("model.layers.")));
    bytes += reader.at(name).bytes();
  }
  const std::string file = test::read_file(saved() / "fold.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof(header));
  EXPECT_EQ(static_cast<int64_t>(file.size()), 8 + static_cast<int64_t>(header) + bytes);
  EXPECT_EQ(bytes, 4 * model->pool().frozen_count());
  const auto dense = SafetensorsReader::open_folder(dense_);
  EXPECT_TRUE(test::same_bytes(reader.at("fold.group.1.self_attn.q_proj.weight"),
                               dense.at("model.layers.3.self_attn.q_proj.weight")));
  EXPECT_TRUE(test::same_bytes(reader.at("fold.layer.1.post_attention_layernorm.weight"),
                               dense.at("model.layers.2.post_attention_layernorm.weight")));
  Model loaded(load_settings());
  EXPECT_TRUE(test::same_bytes(logits(loaded), logits(*model)));
}

TEST_F(FoldedFolder, SaysWhatItIs) {
  FoldState state{"shared", {{"original", 17.75}, {"removed", 30.5}, {"shared", 41.25}}};
  saved_model({.plan = test::six_layers({ChildLevel::scale, 0}), .state = state});
  const Json saved_json = description();
  EXPECT_EQ(saved_json.at("format").as_string(), "tessera sharing");
  EXPECT_EQ(saved_json.at("sharing").dump(),
            R"({"method":"fold","version":1,"state":"shared","layers":6,"virtual_layers":5,"removed":[1],)"
            R"("removed_halves":[],"groups":[{"blocks":[0]},{"blocks":[2,3,4],"parent":3,"values":"own"},)"
            R"({"blocks":[5]}],"child":{"level":"scale","rank":0},)"
            R"("perplexity":{"original":17.75,"removed":30.5,"shared":41.25}})");
  EXPECT_EQ(read_fold_plan(saved() / "fold_plan.json").groups, test::six_layers().groups);
  Model model(load_settings());
  EXPECT_EQ(
      model.sharing().caution(),
      "warning: this model was cut and not cured (perplexity of its calibration rows 41.2, original 17.8): train it further");
  FoldedBase* folded = folded_base(model.sharing());
  ASSERT_TRUE(folded);
  folded->set_state({"removed", {{"original", 17.75}, {"removed", 41.25}, {"replaced", 30.5}}});
  EXPECT_EQ(
      model.sharing().caution(),
      "warning: this model was cut and not cured (perplexity of its calibration rows 30.5, original 17.8): train it further");
  folded->set_state({"cured", {{"cured", 19.5}}});
  EXPECT_EQ(model.sharing().caution(), "");
  EXPECT_EQ(model.sharing().descriptor().at("perplexity").dump(), R"({"cured":19.5})");
}

TEST_F(FoldedFolder, TrainedOnIsCuredAndForgetsWhatWasMeasured) {
  saved_model({.plan = test::six_layers(), .state = {"shared", {{"original", 2}, {"cured", 3}}}});
  Model model(load_settings(true));
  EXPECT_EQ(model.sharing().descriptor().at("state").as_string(), "cured");
  EXPECT_EQ(model.sharing().descriptor().at("perplexity").dump(), R"({"original":2.0})");
  EXPECT_THAT(model.notes(),
              testing::Contains("fold: a block that several layers read is trained by the sum of their gradients"));
}

/// The cure of a saved model: its own numbers are trained, and deltas that it had not.
TEST_F(FoldedFolder, GoesIntoItsCure) {
  saved_model({.plan = test::six_layers({ChildLevel::lora, 2}), .state = {"shared"}});
  Model::Settings settings = load_settings(true);
  settings.sharing.making = std::make_shared<const FoldMaking>(
      FoldMaking{.plan = {}, .state = {}, .training = FoldTraining::own, .cure = lora()});
  Model cured(settings), before(load_settings());
  EXPECT_TRUE(test::same_bytes(logits(cured), logits(before))) << "its deltas begin at zero";
  test::slot_of(cured.pool(), "fold.cure.lora.model.layers.1.self_attn.q_proj.bt").as<float>()[3] = 2;
  test::slot_of(cured.pool(), "fold.layer.1.self_attn.q_proj.lora_a").as<float>()[3] = 2;
  folded_base(cured.sharing())->set_state({"cured"});
  save_sharing(folder_ / "cured", cured);
  Model::Settings loaded = load_settings();
  loaded.sharing.load = folder_ / "cured";
  Model after(loaded);
  EXPECT_TRUE(test::same_bytes(logits(after), logits(cured)));
  EXPECT_EQ(after.bound_adapter()->deltas(after.decoder().block_weights(1).q).size(), 2U);
  settings.sharing.load = folder_ / "cured";
  EXPECT_EQ(fault(settings), "fold: this model is cured already");
}

/// Beside the base's own file: all of the saved model's own numbers, and parents where the base has them.
TEST_F(FoldedFolder, OverItsBaseIsWhatItIsAlone) {
  const FoldPlan plan = test::six_layers({ChildLevel::lora, 2});
  FoldMaking making{.plan = plan, .state = {}, .training = FoldTraining::own};
  saved_model(making);
  const auto reader = std::make_shared<const SafetensorsReader>(SafetensorsReader::open(saved() / "fold.safetensors"));
  making.starts = starts_beside_base(reader, plan);
  const auto over = make(making);
  Model alone(load_settings());
  EXPECT_TRUE(test::same_bytes(logits(*over), logits(alone)));
  const SlotId group = [&] {
    SlotId slot = 0;
    while (over->pool().name(slot) != "fold.group.1.mlp.up_proj.weight") ++slot;
    return slot;
  }();
  EXPECT_EQ(over->pool().values(group).data, over->source()->at("model.layers.3.mlp.up_proj.weight").data);
}

/// A gate that stays is in the saved projection, and not in the base's.
TEST_F(FoldedFolder, OverItsBaseKeepsProjectionsThatAreNotTheBases) {
  const FoldPlan plan = test::six_layers();
  const std::string slot = "fold.group.1.mlp.down_proj.weight";
  FoldMaking making{.plan = plan, .state = {}, .training = FoldTraining::own};
  making.starts[slot] = [](TensorView values) {
    for (int64_t i = 0; i < values.shape.count(); ++i) set_element(values, i, 0.01 * static_cast<double>(i % 7));
  };
  saved_model(making);
  const auto reader = std::make_shared<const SafetensorsReader>(SafetensorsReader::open(saved() / "fold.safetensors"));
  const auto base = SafetensorsReader::open_folder(dense_);
  making.starts = starts_beside_base(reader, plan, &base);
  EXPECT_TRUE(making.starts.contains(slot));
  EXPECT_FALSE(making.starts.contains("fold.group.1.mlp.up_proj.weight"));
  const auto over = make(making);
  Model alone(load_settings());
  EXPECT_TRUE(test::same_bytes(logits(*over), logits(alone)));
}

TEST_F(FoldedFolder, ExportedDenseComputesTheSameInAnOrdinaryReader) {
  for (const ChildLevel level : {ChildLevel::norm, ChildLevel::scale, ChildLevel::lora, ChildLevel::mos}) {
    FoldMaking making{.plan = test::six_layers({level, level >= ChildLevel::lora ? 2 : 0}), .state = {}};
    if (level == ChildLevel::lora) making.cure = lora();
    saved_model(making);
    Model folded(load_settings());
    export_merged(folder_ / "export", folded, dense_, own_.ctx);
    Model dense(test::stored_settings(folder_ / "export"));
    EXPECT_EQ(dense.config().num_hidden_layers, 5);
    const Tensor ours = logits(folded), theirs = logits(dense);
    EXPECT_TRUE(level != ChildLevel::norm || test::same_bytes(ours, theirs));
    for (int64_t i = 0; i < ours.shape().count(); ++i)
      ASSERT_NEAR(element(ours.view(), i), element(theirs.view(), i), 1e-3) << name_of(level);
  }
}

/// A removed half is written as zeros, which add nothing.
TEST_F(FoldedFolder, ExportedWithoutHalvesOfBlocksIsExact) {
  saved_model({.plan = test::halved_layers(), .state = {}});
  Model folded(load_settings());
  export_merged(folder_ / "export", folded, dense_, own_.ctx);
  Model dense(test::stored_settings(folder_ / "export"));
  const Tensor ours = logits(folded), theirs = logits(dense);
  for (int64_t i = 0; i < ours.shape().count(); ++i) ASSERT_EQ(element(ours.view(), i), element(theirs.view(), i)) << i;
  const auto stored = SafetensorsReader::open(saved() / "fold.safetensors"),
             whole = SafetensorsReader::open_folder(folder_ / "export");
  EXPECT_FALSE(stored.contains("fold.group.1.mlp.up_proj.weight"));
  EXPECT_FALSE(stored.contains("fold.layer.3.input_layernorm.weight"));
  for (const char* name : {"model.layers.1.mlp.up_proj.weight", "model.layers.3.input_layernorm.weight"})
    for (const float x : whole.at(name).as<float>()) ASSERT_EQ(x, 0) << name;
}

TEST_F(FoldedFolder, IsTheBaseOfAnAdapterWithAsManyLayers) {
  saved_model({.plan = test::six_layers(), .state = {"cured"}});
  Model::Settings settings = load_settings();
  settings.adapter = lora();
  Model model(settings);
  test::fill_all_normal(model.pool(), 9, 0.2);
  save_adapter(folder_ / "adapter", model);
  Model again(settings);
  load_adapter(folder_ / "adapter", again, "recipe.toml:9:1");
  EXPECT_TRUE(test::same_bytes(logits(again), logits(model)));
  Model::Settings dense = test::stored_settings(dense_);
  dense.adapter = lora();
  for (const char* method : {"lora", "mos"}) {
    settings.adapter.method = dense.adapter.method = method;
    Model original(dense), folded(settings);
    save_adapter(folder_ / "other", original);
    try {
      load_adapter(folder_ / "other", folded, "recipe.toml:9:1");
      FAIL() << "nothing was thrown";
    } catch (const UserError& error) {
      EXPECT_EQ(error.where(), "recipe.toml:9:1");
      EXPECT_EQ(error.message(),
                fmt::format("the adapter in \"{}\" has 6 layers, this folded model has 5: the original's 0, 2, 3, 4, 5",
                            (folder_ / "other").string()));
    }
    fs::remove_all(folder_ / "other");
  }
}

TEST_F(FoldedFolder, IsRefusedByWhoDoesNotKnowThePlanOrHasAnother) {
  saved_model({.plan = test::six_layers(), .state = {}});
  Model::Settings other = load_settings();
  other.sharing.method = "depth";
  EXPECT_THAT(fault(other), HasSubstr("was saved with method \"fold\", this run has \"depth\""));
  other = test::stored_settings(saved());
  EXPECT_THAT(fault(other), HasSubstr("is a saved pool and no model"));
  replace(saved() / "fold_plan.json", "\"parent\":3", "\"parent\":4");
  EXPECT_THAT(fault(load_settings()), HasSubstr("its \"groups\" is [{\"blocks\":[0]},"));
  replace(saved() / "fold_plan.json", "\"parent\":4", "\"parent\":5");
  EXPECT_THAT(fault(load_settings()), HasSubstr("parent"));
  fs::remove(saved() / "fold_plan.json");
  EXPECT_NE(fault(load_settings()), "nothing was thrown");
}

TEST_F(FoldedFolder, BelongsToTheConfigThatItWasMadeOf) {
  saved_model({.plan = test::six_layers(), .state = {}});
  replace(dense_ / "config.json", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 2e-05");
  EXPECT_THAT(fault(load_settings()), HasSubstr("rms_norm_eps was 1e-05 and is 2e-05"));
}

}  // namespace
}  // namespace tessera
