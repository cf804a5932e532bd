// What stands in model.path: the types that weights may have, tied heads, folders of another kind.

#include "model/base_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "support/base_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

using BaseFiles = test::BaseFolder;

TEST_F(BaseFiles, WeightsOfAnyOtherTypeAreRefusedByNameAndType) {
  const fs::path folder = write_model("base", false);
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  for (const DType dtype : {DType::f64, DType::i64, DType::i32, DType::i8, DType::u8}) {
    change(folder, [&](Tensors& tensors) { tensors[name] = Tensor({20, 16}, dtype); });
    EXPECT_EQ(
        fault(given(folder)),
        fmt::format("{}: tensor \"{}\" is stored as {}\n  weights are read from f32, bf16 and f16: write the model "
                    "out in one of them",
                    (folder / "model.safetensors").string(), name, name_of(dtype)));
  }
}

TEST_F(BaseFiles, TypesThatOnlySafetensorsKnowsAreRefusedByNameAndType) {
  const fs::path folder = write_model("base", false);
  for (const char* type : {"I16", "U16", "U32", "U64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                           "F4", "F6_E2M3", "F6_E3M2", "C64"}) {
    const std::string header =
        fmt::format(R"({{"lm_head.weight":{{"dtype":"{}","shape":[4],"data_offsets":[0,16]}}}})", type);
    const uint64_t length = header.size();
    test::write_file(folder / "model.safetensors",
                     std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(16, '\0'));
    EXPECT_THAT(fault(given(folder)),
                HasSubstr(fmt::format(": tensor \"lm_head.weight\": the dtype \"{}\" is not supported", type)));
  }
}

TEST_F(BaseFiles, ATiedModelMayStoreItsMatrixAsTheHead) {
  const fs::path folder = write_model("base", true);
  Model as_usual(given(folder));
  change(folder, [](Tensors& tensors) {
    tensors["lm_head.weight"] = std::move(tensors.at("model.embed_tokens.weight"));
    tensors.erase("model.embed_tokens.weight");
  });
  Model as_head(given(folder));
  EXPECT_EQ(as_head.base_fingerprint(), as_usual.base_fingerprint());
  const std::vector<int32_t> text = {3, 14, 1, 5};
  const Tensor a = test::logits_of(own_.ctx, as_usual, text), b = test::logits_of(own_.ctx, as_head, text);
  EXPECT_EQ(std::memcmp(a.view().data, b.view().data, static_cast<size_t>(a.view().bytes())), 0);
}

TEST_F(BaseFiles, AHeadThatDiffersFromWhatItIsTiedToIsRefused) {
  const fs::path folder = write_model("base", true);
  const auto add_head = [&](double difference) {
    change(folder, [&](Tensors& tensors) {
      tensors["lm_head.weight"] = copy(tensors.at("model.embed_tokens.weight").view());
      tensors["lm_head.weight"].as<float>()[7] += static_cast<float>(difference);
    });
  };
  add_head(0);
  EXPECT_EQ(fault(given(folder)), "no fault");
  add_head(0.01);
  EXPECT_EQ(
      fault(given(folder)),
      (folder / "model.safetensors").string() +
          ": \"model.embed_tokens.weight\" and \"lm_head.weight\" are tied by config.json, but their stored "
          "weights differ\n  set \"tie_word_embeddings\" to false in config.json, or take \"lm_head.weight\" out of "
          "the file");
}

TEST_F(BaseFiles, AConfigWithAKeyTwiceIsRefused) {
  const fs::path folder = write_model("base", false);
  std::string config = test::read_file(folder / "config.json");
  test::write_file(folder / "config.json", config.insert(1, "\"rms_norm_eps\": 1e-6,"));
  EXPECT_THAT(fault(given(folder)), HasSubstr("the key \"rms_norm_eps\" appears twice in one object"));
}

TEST_F(BaseFiles, NumbersBeyondF32AreRefused) {
  const fs::path folder = write_model("base", false);
  const Json config = Json::parse(test::read_file(folder / "config.json"), "config.json");
  for (const auto& [key, value] :
       {std::pair{"rms_norm_eps", 1e-46}, {"rope_theta", 1e39}, {"initializer_range", 1e300}}) {
    test::write_file(folder / "config.json", Json(config).set(key, value).dump());
    EXPECT_THAT(fault(given(folder)), HasSubstr(fmt::format("\"{}\" is", key)));
    EXPECT_THAT(fault(given(folder)), HasSubstr("expected 1.18e-38 to 3.4e+38"));
  }
}

TEST_F(BaseFiles, FoldersOfAnotherKindSayWhatTheyAre) {
  const fs::path run = folder_ / "run", base = folder_ / "base";
  for (const char* part : {"run/adapter", "run/peft", "pool", "run/checkpoints"})
    fs::create_directories(folder_ / part);
  test::write_file(run / "recipe.toml", "[model]\npath = \"" + base.string() + "\"\n");
  test::write_file(run / "adapter/adapter.json", "{}");
  test::write_file(run / "peft/adapter_config.json", R"({"base_model_name_or_path": "org/name"})");
  test::write_file(folder_ / "pool/sharing.json", "{}");
  EXPECT_EQ(
      fault(given(run / "peft")),
      fmt::format(
          "a.toml:2:1: model.path \"{}\" is an adapter in PEFT's format and no model\n"
          "  set model.path to the base model that it was trained on: \"org/name\"\n"
          "  an adapter of PEFT answers requests, by generate.adapters; what a run of this program trained is read "
          "by adapter.load, too",
          (run / "peft").string()));
  EXPECT_EQ(fault(given(run / "adapter")),
            fmt::format("a.toml:2:1: model.path \"{0}/adapter\" is a saved adapter and no model\n"
                        "  set model.path to the base model that it was trained on: \"{1}\"\n"
                        "  and adapter.load to \"{0}/adapter\"",
                        run.string(), base.string()));
  EXPECT_THAT(fault(given(folder_ / "pool")), HasSubstr("is a saved pool and no model"));
  EXPECT_EQ(fault(given(run)), fmt::format("a.toml:2:1: model.path \"{0}\" is the folder of a run and no model\n"
                                           "  set model.path to the base model that it was trained on: \"{1}\"\n"
                                           "  and adapter.load to \"{0}/adapter\"",
                                           run.string(), base.string()));
  fs::create_directories(run / "model");
  test::write_file(run / "model/config.json", "{}");
  EXPECT_EQ(fault(given(run)), fmt::format("a.toml:2:1: model.path \"{0}\" is the folder of a run and no model\n"
                                           "  set model.path to the model that it wrote: \"{0}/model\"",
                                           run.string()));
}

}  // namespace
}  // namespace tessera
