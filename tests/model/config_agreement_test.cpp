// A config.json that contradicts the tensors: what is told of each way to be wrong.

#include "model/config_agreement.h"

#include <gmock/gmock.h>

#include "support/base_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kApart = "\n  config.json and the weights do not belong together";

class ConfigAgreement : public test::BaseFolder {
 protected:
  /// What is said of a folder with these keys in config.json, behind the file's name.
  std::string fault_with(const Json::Object& keys, const test::TinyConfig& config = {}) {
    const fs::path folder = write_model("base", config);
    configure(folder, keys);
    return behind_name(folder);
  }
  std::string behind_name(const fs::path& folder) const {
    const std::string text = fault(folder), place = (folder / "model.safetensors").string() + ": ";
    return text.starts_with(place) ? text.substr(place.size()) : text;
  }
  static std::string in_layer(int layer, const std::string& rest) {
    return fmt::format("model.layers.{}.{}", layer, rest);
  }
};

TEST_F(ConfigAgreement, KeysOfHeadsAreNamedWithTheNumbersThatTheyMake) {
  EXPECT_EQ(fault_with({{"num_key_value_heads", int64_t{4}}}),
            std::string("6 tensors are not as config.json says\n"
                        "  tensor \"model.layers.0.self_attn.k_proj.weight\" is [8, 16], config.json says [16, 16]: "
                        "num_key_value_heads (4) x head_dim (4); 2 more like it\n"
                        "  tensor \"model.layers.0.self_attn.v_proj.weight\" is [8, 16], config.json says [16, 16]: "
                        "num_key_value_heads (4) x head_dim (4); 2 more like it") +
                kApart);
  EXPECT_THAT(fault_with({{"num_attention_heads", int64_t{8}}}),
              AllOf(HasSubstr("6 tensors are"),
                    HasSubstr("q_proj.weight\" is [16, 16], config.json says [32, 16]: num_attention_heads (8) x "
                              "head_dim (4)"),
                    HasSubstr("o_proj.weight\" is [16, 16], config.json says [16, 32]: num_attention_heads (8) x "
                              "head_dim (4)")));
  EXPECT_THAT(fault_with({{"head_dim", int64_t{8}}}),
              AllOf(HasSubstr("12 tensors are"), HasSubstr("num_key_value_heads (2) x head_dim (8)"),
                    HasSubstr("v_proj"), Not(HasSubstr("o_proj")), HasSubstr("\n  and 3 more\n")));
}

TEST_F(ConfigAgreement, NumbersThatConfigJsonDoesNotGiveAreToldAsDefaults) {
  EXPECT_THAT(fault_with({{"head_dim", Json()}, {"num_attention_heads", int64_t{2}}}),
              HasSubstr("k_proj.weight\" is [8, 16], config.json says [16, 16]: num_key_value_heads (2) x head_dim (8, "
                        "by default)"));
  EXPECT_THAT(fault_with({{"num_key_value_heads", Json()}}),
              HasSubstr("num_key_value_heads (4, by default) x head_dim (4)"));
}

TEST_F(ConfigAgreement, SizesAreNamed) {
  EXPECT_THAT(fault_with({{"vocab_size", int64_t{24}}}),
              AllOf(HasSubstr("2 tensors are"),
                    HasSubstr("tensor \"model.embed_tokens.weight\" is [23, 16], config.json says "
                              "[24, 16]: vocab_size (24)\n"),
                    HasSubstr("tensor \"lm_head.weight\" is [23, 16], ")));
  EXPECT_THAT(fault_with({{"intermediate_size", int64_t{21}}}),
              HasSubstr("down_proj.weight\" is [16, 20], config.json says [16, 21]: intermediate_size (21); 2 more"));
  EXPECT_THAT(fault_with({{"hidden_size", int64_t{24}}}),
              AllOf(HasSubstr("30 tensors are"),
                    HasSubstr("tensor \"model.layers.0.input_layernorm.weight\" is [16], config.json says [24]: "
                              "hidden_size (24); 2 more like it\n"),
                    HasSubstr("\n  and 23 more\n")));
}

TEST_F(ConfigAgreement, OneTensorIsToldInOneLine) {
  const fs::path folder = write_model("base", false);
  change(folder, [](Tensors& t) { t["model.layers.1.mlp.up_proj.weight"] = zeros({320}); });
  EXPECT_EQ(behind_name(folder), std::string("tensor \"model.layers.1.mlp.up_proj.weight\" is [320], config.json says "
                                             "[20, 16]: intermediate_size (20), hidden_size (16)") +
                                     kApart);
}

TEST_F(ConfigAgreement, LayersThatAreMissingOrTooManyAreCounted) {
  EXPECT_EQ(
      fault_with({{"num_hidden_layers", int64_t{5}}}),
      std::string("18 tensors are not as config.json says\n  tensor \"model.layers.3.input_layernorm.weight\" [16] "
                  "is missing, and all others of layers 3 to 4: num_hidden_layers is 5") +
          kApart);
  EXPECT_EQ(
      fault_with({{"num_hidden_layers", int64_t{2}}}),
      std::string("9 tensors are not as config.json says\n  tensor \"model.layers.2.input_layernorm.weight\" [16] "
                  "has no place in the model of config.json: num_hidden_layers is 2, the files have 3 layers") +
          kApart);
  EXPECT_THAT(fault_with({{"num_hidden_layers", int64_t{2}}}, {.layers = 12}),
              HasSubstr("tensor \"model.layers.2.input_layernorm.weight\" [16] has no place"));
  const fs::path folder = write_model("holes", {.layers = 4});
  change(folder, [](Tensors& t) {
    std::erase_if(t, [](const auto& item) { return item.first.starts_with("model.layers.1."); });
  });
  EXPECT_THAT(fault(folder), HasSubstr("and all others of layer 1: num_hidden_layers is 4\n"));
  change(folder, [](Tensors& t) {
    std::erase_if(t, [](const auto& item) { return item.first.starts_with("model.layers.3."); });
  });
  EXPECT_THAT(fault(folder), HasSubstr("and all others of 2 layers: num_hidden_layers is 4\n"));
}

TEST_F(ConfigAgreement, BiasesAreWhatTheFlagsSay) {
  EXPECT_EQ(fault_with({{"attention_bias", true}}),
            std::string("12 tensors are not as config.json says\n"
                        "  tensor \"model.layers.0.self_attn.q_proj.bias\" [16] is missing: attention_bias is true; 2 "
                        "more like it\n"
                        "  tensor \"model.layers.0.self_attn.k_proj.bias\" [8] is missing: attention_bias is true; 2 "
                        "more like it\n"
                        "  tensor \"model.layers.0.self_attn.v_proj.bias\" [8] is missing: attention_bias is true; 2 "
                        "more like it\n"
                        "  and 3 more") +
                kApart);
  EXPECT_THAT(fault_with({{"mlp_bias", true}}),
              HasSubstr("tensor \"model.layers.0.mlp.gate_proj.bias\" [20] is missing: mlp_bias is true"));
  EXPECT_THAT(fault_with({{"mlp_bias", false}}, {.biases = true}),
              AllOf(HasSubstr("9 tensors are"),
                    HasSubstr("tensor \"model.layers.0.mlp.down_proj.bias\" [16] has no place in the model of "
                              "config.json: mlp_bias is false; 2 more like it\n")));
  EXPECT_THAT(fault_with({{"attention_bias", Json()}}, {.biases = true}),
              HasSubstr("q_proj.bias\" [16] has no place in the model of config.json: attention_bias is false by "
                        "default; models of the family \"qwen2\" have it"));
}

TEST_F(ConfigAgreement, WhatAnotherFamilyHasIsToldWithItsName) {
  const fs::path folder = write_model("base", false);
  configure(folder, {{"model_type", "qwen2"}});
  EXPECT_THAT(behind_name(folder), AllOf(HasSubstr("9 tensors are"),
                                         HasSubstr("q_proj.bias\" [16] is missing: models of the family \"qwen2\" have "
                                                   "it; 2 more like it\n")));
  configure(folder, {{"model_type", "qwen3"}});
  EXPECT_THAT(
      behind_name(folder),
      AllOf(HasSubstr("6 tensors are"), HasSubstr("k_norm.weight\" [4] is missing: models of the family \"qwen3\" have "
                                                  "it; 2 more like it\n")));
  change(folder, [](Tensors& t) {
    for (int layer = 0; layer < 3; ++layer)
      for (const char* norm : {"q", "k"})
        t[in_layer(layer, fmt::format("self_attn.{}_norm.weight", norm))] = zeros({4});
  });
  EXPECT_EQ(fault(folder), "no fault");
  configure(folder, {{"model_type", "llama"}});
  EXPECT_THAT(
      behind_name(folder),
      HasSubstr("tensor \"model.layers.0.self_attn.q_norm.weight\" [4] has no place in the model of config.json: "
                "models of the family \"qwen3\" have it; 2 more like it\n"));
}

TEST_F(ConfigAgreement, AModelWithoutItsHeadIsNotTied) {
  EXPECT_EQ(fault_with({{"tie_word_embeddings", false}}, {.tied = true}),
            "tensor \"lm_head.weight\" [23, 16] is missing: tie_word_embeddings is false\n"
            "  the model was saved without its head: save it as AutoModelForCausalLM; \"tie_word_embeddings\": true is "
            "right only if it was trained so");
  EXPECT_THAT(fault_with({{"tie_word_embeddings", Json()}}, {.tied = true}),
              HasSubstr("is missing: tie_word_embeddings is false by default\n"));
  const fs::path folder = write_model("none", true);
  change(folder, [](Tensors& t) { t.erase("model.embed_tokens.weight"); });
  EXPECT_THAT(behind_name(folder), HasSubstr("tensor \"model.embed_tokens.weight\" [23, 16] is missing"));
}

TEST_F(ConfigAgreement, FaultsOfAllSortsAreCountedAndThreeAreShown) {
  const fs::path folder = write_model("base", false);
  change(folder, [](Tensors& t) {
    t["extra"] = zeros({3});
    t["model.layers.1.mlp.extra.weight"] = zeros({3});
    t["model.norm.weight"] = zeros({15});
    t.erase("model.layers.2.mlp.up_proj.weight");
  });
  EXPECT_EQ(behind_name(folder),
            std::string("4 tensors are not as config.json says\n"
                        "  tensor \"model.layers.2.mlp.up_proj.weight\" [20, 16] is missing\n"
                        "  tensor \"model.norm.weight\" is [15], config.json says [16]: hidden_size (16)\n"
                        "  tensor \"extra\" [3] has no place in the model of config.json\n"
                        "  and 1 more") +
                kApart);
}

TEST_F(ConfigAgreement, NamesAreThoseOfTheFiles) {
  const fs::path folder = write_model("base", false);
  rename(folder, [](const std::string& name) { return name.starts_with("model.") ? name.substr(6) : name; });
  configure(folder, {{"num_key_value_heads", int64_t{1}}, {"num_hidden_layers", int64_t{4}}});
  EXPECT_THAT(behind_name(folder), AllOf(HasSubstr("tensor \"layers.0.self_attn.k_proj.weight\" is [8, 16]"),
                                         HasSubstr("tensor \"layers.3.input_layernorm.weight\" [16] is missing")));
}

TEST_F(ConfigAgreement, OfSeveralFilesTheFolderIsNamed) {
  const fs::path folder = write_model("base", false);
  Json weight_map = Json::object();
  {
    const auto reader = SafetensorsReader::open_folder(folder);
    for (const int part : {0, 1}) {
      const std::string shard = fmt::format("model-0000{}-of-00002.safetensors", part + 1);
      std::vector<std::pair<std::string, ConstView>> tensors;
      for (const std::string& name : reader.names())
        if (name.starts_with("model.layers.0") == (part == 0)) {
          tensors.emplace_back(name, reader.at(name));
          weight_map.set(name, shard);
        }
      write_safetensors(folder / shard, tensors);
    }
  }
  fs::remove(folder / "model.safetensors");
  test::write_file(folder / "model.safetensors.index.json", Json::object().set("weight_map", weight_map).dump());
  EXPECT_EQ(fault(folder), "no fault");
  configure(folder, {{"num_key_value_heads", int64_t{1}}});
  EXPECT_THAT(fault(folder), testing::StartsWith(folder.string() + ": 6 tensors are"));
  configure(folder, {{"num_key_value_heads", int64_t{2}}, {"vocab_size", int64_t{24}}});
  EXPECT_THAT(fault(folder),
              testing::StartsWith((folder / "model-00002-of-00002.safetensors").string() + ": 2 tensors"));
}

TEST_F(ConfigAgreement, ItIsAlsoCheckedWhereNothingIsComputed) {
  const fs::path folder = write_model("base", false);
  configure(folder, {{"num_hidden_layers", int64_t{4}}});
  Model::Settings settings = given(folder);
  const std::string expected = fault(settings);
  settings.memory = Memory::counted;  // as for --check
  EXPECT_EQ(fault(settings), expected);
  settings.sharing.method = "rps";
  EXPECT_EQ(fault(settings), expected);
}

}  // namespace
}  // namespace tessera
