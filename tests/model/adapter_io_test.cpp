#include "model/adapter_io.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "io/files.h"
#include "model/export.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

AdapterConfig mos() {
  AdapterConfig config;
  config.method = "mos";
  config.equivalent_rank = 2;
  config.rank = 4;
  config.shards = 2;
  return config;
}

AdapterConfig lora() {
  AdapterConfig config;
  config.method = "lora";
  config.rank = 3;
  return config;
}

class AdapterFolder : public testing::Test {
 protected:
  std::unique_ptr<Model> load_model(const AdapterConfig& adapter, uint64_t seed = 11,
                                    const test::TinyConfig& config = {}) {
    Model::Settings settings = test::tiny_settings(base_.path(), config);
    settings.adapter = adapter;
    settings.seed = seed;
    return std::make_unique<Model>(settings);
  }
  /// A model whose adapter has values, saved into folder().
  std::unique_ptr<Model> saved_model(const AdapterConfig& adapter) {
    auto model = load_model(adapter);
    test::fill_all_normal(model->pool(), 5, 0.3);
    save_adapter(folder(), *model);
    return model;
  }
  fs::path folder() const { return saved_.path() / "adapter"; }

  /// The error of loading into this model, which must leave its values alone.
  std::pair<std::string, std::string> fault(Model& model) {
    const auto values = model.pool().trainable().values.as<float>();
    const std::vector<float> before(values.begin(), values.end());
    try {
      load_adapter(folder(), model, "recipe.toml:9:1");
    } catch (const UserError& error) {
      EXPECT_EQ(before, std::vector<float>(values.begin(), values.end())) << "loaded partially";
      return {error.where(), error.message()};
    }
    return {"", "nothing was thrown"};
  }
  std::string fault_of_run(const AdapterConfig& adapter) {
    const auto [where, message] = fault(*load_model(adapter));
    EXPECT_EQ(where, "recipe.toml:9:1");
    return message;
  }
  /// Rewrites adapter.json so that it fits the file beside it again.
  void seal(const std::string& file) {
    Json json = Json::parse(test::read_file(folder() / "adapter.json"), "");
    json.set("sha256", sha256_of_file(folder() / file));
    test::write_file(folder() / "adapter.json", json.dump());
  }

  test::TemporaryFolder base_, saved_;
};

TEST_F(AdapterFolder, BringsEveryValueBackBitForBit) {
  for (const auto& adapter : {mos(), lora()}) {
    const auto saved = saved_model(adapter);
    const auto loaded = load_model(adapter);
    ASSERT_FALSE(test::same_bytes(saved->pool().trainable().values, loaded->pool().trainable().values));
    load_adapter(folder(), *loaded, "");
    EXPECT_TRUE(test::same_bytes(saved->pool().trainable().values, loaded->pool().trainable().values));
  }
}

TEST_F(AdapterFolder, HoldsPoolsUnderTheirNamesAndTheDescriptor) {
  const auto model = saved_model(mos());
  const auto reader = SafetensorsReader::open(folder() / "mos.safetensors");
  EXPECT_EQ(reader.names().size(), 14u);
  EXPECT_EQ(reader.at("mos.self_attn.q_proj.pool_a").shape, (Shape{2 * 3 * 2, 16 / 2}));
  EXPECT_EQ(reader.at("mos.mlp.up_proj.pool_b").shape, (Shape{2 * 3 * 2, 20 / 2}));
  const Json json = Json::parse(test::read_file(folder() / "adapter.json"), "");
  EXPECT_EQ(json.at("format").as_string(), "tessera adapter");
  EXPECT_EQ(json.at("format_version").as_integer(), 1);
  EXPECT_EQ(json.at("parameters").as_integer(), model->pool().trainable_count());
  EXPECT_EQ(json.at("base_fingerprint").as_string(), model->base_fingerprint());
  EXPECT_EQ(json.at("adapter").dump(), model->adapter()->descriptor().dump());
  save_adapter(folder(), *load_model(lora()));
  EXPECT_EQ(SafetensorsReader::open(folder() / "lora.safetensors").at("lora.model.layers.1.mlp.down_proj.a").shape,
            (Shape{3, 20}));
}

TEST_F(AdapterFolder, IsTheSameBytesWhenSavedTwice) {
  const auto model = saved_model(mos());
  const std::string file = test::read_file(folder() / "mos.safetensors"),
                    json = test::read_file(folder() / "adapter.json");
  save_adapter(folder(), *model);
  EXPECT_EQ(file, test::read_file(folder() / "mos.safetensors"));
  EXPECT_EQ(json, test::read_file(folder() / "adapter.json"));
}

TEST_F(AdapterFolder, MayBeTrainedOnWithOtherDropout) {
  saved_model(mos());
  AdapterConfig config = mos();
  config.dropout = 0.1;
  EXPECT_NO_THROW(load_adapter(folder(), *load_model(config), ""));
}

TEST_F(AdapterFolder, IsRefusedWithBothValuesWhenTheRunDiffers) {
  saved_model(mos());
  const std::string start = fmt::format("the adapter in \"{}\" was saved with ", folder().string());
  EXPECT_EQ(fault_of_run(lora()), start + "method \"mos\", this run has \"lora\"");
  AdapterConfig other = mos();
  other.index_seed = 3;
  EXPECT_EQ(fault_of_run(other), start + "index_seed 0, this run has 3");
  other = mos();
  other.equivalent_rank = 3;
  EXPECT_EQ(fault_of_run(other), start + "equivalent_rank 2, this run has 3");
  other = mos();
  other.rank = 3;
  EXPECT_EQ(fault_of_run(other), start + "rank 4, this run has 3");
  other = mos();
  other.private_rank = 0;
  EXPECT_EQ(fault_of_run(other), start + "private_rank 1, this run has 0");
  other = mos();
  other.shards = 4;
  EXPECT_EQ(fault_of_run(other), start + "shards 2, this run has 4");
  other = mos();
  other.alpha = 8;
  EXPECT_EQ(fault_of_run(other), start + "alpha 16.0, this run has 8.0");
  other = mos();
  other.draw = "tied";
  EXPECT_EQ(fault_of_run(other), start + "draw \"random\", this run has \"tied\"");
  other = mos();
  other.scale = "rs";
  EXPECT_EQ(fault_of_run(other), start + "scale \"standard\", this run has \"rs\"");
  other = mos();
  other.targets = {"q_proj"};
  EXPECT_EQ(fault_of_run(other), start + "types \"mlp.down_proj\", this run has \"self_attn.q_proj\"");
}

TEST_F(AdapterFolder, IsRefusedWithBothFingerprintsOnAnotherBase) {
  const auto model = saved_model(mos());
  const auto other = load_model(mos(), 12);
  ASSERT_NE(other->base_fingerprint(), model->base_fingerprint());
  EXPECT_EQ(fault(*other).second,
            fmt::format("the adapter in \"{}\" was saved with base_fingerprint \"{}\", this run has \"{}\"",
                        folder().string(), model->base_fingerprint(), other->base_fingerprint()));
}

TEST_F(AdapterFolder, OnAnotherBaseComesWithThePathsOfBoth) {
  const auto model = saved_model(mos());
  const auto other = load_model(mos(), 12);
  test::write_file(saved_.path() / "recipe.toml", "[model]\npath = \"theirs\"\n");
  std::string hint;
  try {
    load_adapter(folder(), *other, "recipe.toml:9:1");
  } catch (const UserError& error) {
    hint = error.hint();
  }
  EXPECT_THAT(hint, testing::AllOf(testing::HasSubstr("model.path of the run that it lies in: " +
                                                      (saved_.path() / "theirs").string() + "\n"),
                                   testing::HasSubstr("model.path here: " + other->options().path.string())));
}

TEST_F(AdapterFolder, MayBeNamedByItsRun) {
  const auto model = saved_model(mos());
  EXPECT_EQ(adapter_folder(saved_.path()), folder());
  EXPECT_EQ(adapter_folder(folder()), folder());
  const auto other = load_model(mos());
  load_adapter(saved_.path(), *other, "recipe.toml:9:1");
  const auto mine = other->pool().trainable().values.as<float>(), theirs = model->pool().trainable().values.as<float>();
  EXPECT_TRUE(std::equal(mine.begin(), mine.end(), theirs.begin(), theirs.end()));
}

TEST_F(AdapterFolder, OfAModelWithOtherLayersIsRefused) {
  saved_model(mos());
  const auto deeper = load_model(mos(), 11, {.layers = 4});
  EXPECT_EQ(
      fault(*deeper).second,
      fmt::format(
          R"(the adapter in "{}" was saved with layers {{"type":"mlp.down_proj","layers":[0,1,2]}}, this run has {{"type":"mlp.down_proj","layers":[0,1,2,3]}})",
          folder().string()));
}

TEST_F(AdapterFolder, IsRefusedWhenItsTablesCannotBeDrawnAgain) {
  const auto model = saved_model(mos());
  const std::string ours = model->adapter()->descriptor().at("tables").items()[1].at("fnv1a").as_string();
  std::string json = test::read_file(folder() / "adapter.json");
  json.replace(json.find(ours), ours.size(), "0123456789abcdef");
  test::write_file(folder() / "adapter.json", json);
  EXPECT_EQ(
      fault_of_run(mos()),
      fmt::format(
          R"(the adapter in "{}" was saved with tables {{"table":"mlp.down_proj.0.b","fnv1a":"0123456789abcdef"}}, this run has {{"table":"mlp.down_proj.0.b","fnv1a":"{}"}})",
          folder().string(), ours));
}

TEST_F(AdapterFolder, ThatWasExportedForPeftIsAnAssembledLora) {
  export_peft(folder(), *load_model(mos()));
  EXPECT_EQ(fault_of_run(mos()), "this is an assembled LoRA (no pool); resume needs mos.safetensors");
}

TEST_F(AdapterFolder, ThatIsNotThereIsNamed) {
  EXPECT_EQ(fault_of_run(mos()), fmt::format("the adapter's folder \"{}\" does not exist", folder().string()));
  fs::create_directories(folder());
  EXPECT_EQ(fault_of_run(mos()), fmt::format("\"{}\" holds no adapter.json", folder().string()));
}

TEST_F(AdapterFolder, OfALaterFormatIsRefused) {
  saved_model(mos());
  Json json = Json::parse(test::read_file(folder() / "adapter.json"), "");
  test::write_file(folder() / "adapter.json", json.set("format_version", 2).dump());
  EXPECT_EQ(fault(*load_model(mos())).second, "format_version is 2, this program reads 1");
  test::write_file(folder() / "adapter.json", "{}");
  EXPECT_EQ(fault(*load_model(mos())).second,
            "this is no description of an adapter: \"format\" is not \"tessera adapter\"");
}

TEST_F(AdapterFolder, CutShortAnywhereIsNamedAndNothingIsLoaded) {
  saved_model(mos());
  const std::string whole = test::read_file(folder() / "mos.safetensors");
  const auto model = load_model(mos());
  for (size_t length = 0; length < whole.size(); length += 97) {
    test::write_file(folder() / "mos.safetensors", whole.substr(0, length));
    EXPECT_EQ(fault(*model).first, (folder() / "mos.safetensors").string()) << length;
  }
  fs::remove(folder() / "mos.safetensors");
  EXPECT_THAT(fault(*model).first, StartsWith((folder() / "mos.safetensors").string()));
}

TEST_F(AdapterFolder, WithOneAlteredBitIsRefused) {
  saved_model(mos());
  std::string bytes = test::read_file(folder() / "mos.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  test::write_file(folder() / "mos.safetensors", bytes);
  EXPECT_THAT(fault(*load_model(mos())).second, StartsWith("its SHA-256 is "));
}

TEST_F(AdapterFolder, WithABrokenNumberNamesPoolRowAndReaders) {
  const auto model = saved_model(mos());
  const TensorView pool = test::slot_of(model->pool(), "mos.self_attn.v_proj.pool_b");
  const int64_t row = 1 * 3 * 2 + 2 * 2;  // private to layer 2: n_pub = (e-p) L l = 6, then p l = 2 rows a layer
  for (const float broken : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    pool.row<float>(row)[1] = broken;
    EXPECT_THROW(save_adapter(folder(), *model), UserError);
    std::vector<std::pair<std::string, ConstView>> tensors;  // as an earlier version saved them all the same
    const auto names = SafetensorsReader::open(folder() / "mos.safetensors").names();
    for (const std::string& name : names) tensors.emplace_back(name, test::slot_of(model->pool(), name));
    write_safetensors(folder() / "mos.safetensors", tensors);
    seal("mos.safetensors");
    EXPECT_EQ(
        fault(*load_model(mos())).second,
        fmt::format("the adapter holds {}: pool mos.self_attn.v_proj.pool_b row {}, read by layers 2", broken, row));
  }
}

TEST_F(AdapterFolder, WithAnotherShapeOrTensorIsRefused) {
  const auto model = saved_model(lora());
  const auto reader = SafetensorsReader::open(folder() / "lora.safetensors");
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const std::string& name : reader.names()) tensors.emplace_back(name, reader.at(name));
  auto changed = tensors;
  changed[0].second = changed[0].second.slice_rows(0, 2);
  write_safetensors(folder() / "lora.safetensors", changed);
  seal("lora.safetensors");
  EXPECT_EQ(fault(*load_model(lora())).second,
            "tensor \"lora.model.layers.0.mlp.down_proj.a\" is f32 [2, 20], expected f32 [3, 20]");
  changed = tensors;
  changed.emplace_back("stray", tensors[0].second);
  write_safetensors(folder() / "lora.safetensors", changed);
  seal("lora.safetensors");
  EXPECT_EQ(fault(*load_model(lora())).second, "holds 43 tensors, expected 42");
}

}  // namespace
}  // namespace tessera
