// What config.json of each family may say: keys that are read, that have no effect, that are refused; what a missing
// key means.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "io/json_file.h"
#include "model/model_config.h"
#include "support/golden.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Json config_of(const std::string& family) { return test::to_json({.layers = 4}).set("model_type", family); }

std::string fault_of(const Json& config) {
  try {
    parse_model_config(config, "config.json");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::string fault_with(const std::string& family, const std::string& key, Json value) {
  return fault_of(config_of(family).set(key, std::move(value)));
}

TEST(ConfigKeys, ThatNobodyReadsAreRefusedByName) {
  for (const ModelFamily& family : model_families()) {
    const std::string name(family.name);
    for (const char* key : {"use_qk_norm", "clip_qkv", "attn_logit_softcapping", "final_logit_softcapping",
                            "attention_multiplier", "embedding_multiplier", "num_experts", "num_local_experts",
                            "quantization_config", "vision_config", "some_key"})
      for (const Json& value : {Json(1.0), Json(true), Json("yes")})
        EXPECT_THAT(fault_with(name, key, value),
                    HasSubstr(fmt::format("config.json: \"{}\" is {}: a key that the family \"{}\" does not have", key,
                                          value.dump(), name)));
    EXPECT_EQ(fault_with(name, "use_qk_norm", Json()), "") << "null is not there";
    EXPECT_THAT(fault_with(name, "hidden_act", "gelu"), HasSubstr("\"hidden_act\" is \"gelu\""));
  }
}

TEST(ConfigKeys, OfOneFamilyAreNotThoseOfAnother) {
  for (const char* key : {"layer_types", "sliding_window", "no_rope_layers", "use_sliding_window"})
    EXPECT_THAT(fault_with("llama", key, Json(4)), HasSubstr(key));
  EXPECT_THAT(fault_with("mistral", "layer_types", Json::array()), HasSubstr("layer_types"));
  EXPECT_THAT(fault_with("mistral", "attention_bias", Json(true)), HasSubstr("attention_bias"));
  EXPECT_THAT(fault_with("qwen2", "no_rope_layers", Json::array()), HasSubstr("no_rope_layers"));
  EXPECT_THAT(fault_with("qwen2", "use_mrope", Json(true)), HasSubstr("use_mrope"));
  EXPECT_EQ(fault_with("qwen2", "use_mrope", Json(false)), "");
}

TEST(ConfigKeys, ThatNobodyReadsAreToldAtOnce) {
  EXPECT_EQ(
      fault_of(config_of("qwen3").set("clip_qkv", 8).set("use_qk_norm", true)),
      "config.json: \"clip_qkv\" is 8, \"use_qk_norm\" is true: keys that the family \"qwen3\" does not have here, "
      "and that may change what the model computes\n"
      "  remove them from config.json if the model computes the same without them");
}

TEST(ConfigKeys, ThatSayThatAPartIsNotThereHaveNoEffectWithThatValueAlone) {
  for (const ModelFamily& family : model_families()) {
    const std::string name(family.name);
    for (const char* key : {"chat_template", "description"}) EXPECT_EQ(fault_with(name, key, "text"), "") << key;
    EXPECT_EQ(fault_with(name, "pruned_heads", Json::object()), "");
    EXPECT_EQ(fault_with(name, "partial_rotary_factor", 1.0), "");
    EXPECT_EQ(fault_with(name, "partial_rotary_factor", 1), "");
    for (const char* key : {"add_cross_attention", "is_encoder_decoder"}) {
      EXPECT_EQ(fault_with(name, key, false), "") << key;
      EXPECT_THAT(fault_with(name, key, true), HasSubstr(key));
    }
    EXPECT_THAT(fault_with(name, "pruned_heads", Json::object().set("1", Json::array().push_back(0))),
                HasSubstr("pruned_heads"));
    EXPECT_THAT(fault_with(name, "partial_rotary_factor", 0.5), HasSubstr("partial_rotary_factor"));
  }
  EXPECT_EQ(fault_with("mistral", "attention_bias", false), "");
  EXPECT_EQ(fault_with("mistral", "use_sliding_window", false), "");
  EXPECT_THAT(fault_with("mistral", "use_sliding_window", true), HasSubstr("use_sliding_window"));
}

TEST(ConfigKeys, OfHeadsThatAreMissingAreToldAsDefaults) {
  Json json = config_of("mistral").set("num_attention_heads", 12).set("head_dim", 8);
  json.set("num_key_value_heads", Json());
  Json without = Json::object();
  for (const auto& [key, value] : json.members())
    if (key != "num_key_value_heads") without.set(key, value);
  EXPECT_EQ(fault_of(without),
            "config.json: num_attention_heads=12 is not a multiple of num_key_value_heads=8, which is the family's "
            "default\n  give \"num_key_value_heads\"");
}

TEST(ConfigKeys, OfOldLlamasThatTellOfTheirTrainingHaveNoEffect) {
  EXPECT_EQ(fault_with("llama", "max_sequence_length", 2048), "") << "Llama 1";
  EXPECT_EQ(fault_with("llama", "pretraining_tp", 2), "") << "Llama 2 13B";
  EXPECT_THAT(fault_with("qwen2", "max_sequence_length", 2048), HasSubstr("max_sequence_length"));
}

TEST(ConfigKeys, OfRotaryPositionsAreReadOrRefused) {
  const auto with = [](Json scaling) { return fault_with("llama", "rope_scaling", std::move(scaling)); };
  Json llama3 = Json::object()
                    .set("rope_type", "llama3")
                    .set("factor", 8)
                    .set("low_freq_factor", 1)
                    .set("high_freq_factor", 4)
                    .set("original_max_position_embeddings", 64);
  EXPECT_EQ(with(llama3), "");
  EXPECT_THAT(with(Json(llama3).set("partial_rotary_factor", 0.5)), HasSubstr("rope_scaling.partial_rotary_factor"));
  EXPECT_THAT(with(Json(llama3).set("factor", 0)), HasSubstr("\"factor\" is 0"));
  EXPECT_EQ(with(Json::object().set("rope_type", "llama3").set("low_freq_factor", 1)),
            "config.json: \"rope_scaling\" is of type llama3 and lacks \"factor\", \"high_freq_factor\"\n"
            "  take them from the config.json that the model was published with");
  EXPECT_THAT(with("linear"), HasSubstr("\"rope_scaling\" is \"linear\", expected an object"));
  EXPECT_THAT(with(Json::object().set("rope_type", "yarn").set("factor", 2)), HasSubstr("yarn"));
  EXPECT_THAT(with(Json::object().set("rope_type", "default").set("factor", 2)), HasSubstr("rope_scaling.factor"));
}

// Each message names the key of the file, and none leads to a file that has lost its theta.
TEST(ConfigKeys, OfRotaryPositionsAreNamedAsTheFileDoes) {
  const auto with = [](Json table) { return fault_with("qwen3", "rope_parameters", std::move(table)); };
  const Json yarn = Json::object().set("rope_type", "yarn").set("factor", 2).set("rope_theta", 1e6);
  EXPECT_EQ(with(yarn),
            "config.json: \"rope_parameters.rope_type\" is \"yarn\": this changes the model's arithmetic and is not "
            "supported\n  supported: rope_type \"default\" or \"llama3\"; rope_theta stays as it is");
  EXPECT_THAT(with(Json::object().set("type", "su")), HasSubstr("\"rope_parameters.type\" is \"su\""));
  EXPECT_THAT(with(Json::object().set("rope_type", 3)), HasSubstr("\"rope_parameters.rope_type\" is 3"));
  EXPECT_THAT(with(Json::object().set("partial_rotary_factor", 0.5)), HasSubstr("rope_parameters.partial_rotary"));
  EXPECT_THAT(with(Json::object().set("rope_theta", 0)), HasSubstr("rope_parameters: \"rope_theta\" is 0"));
  const Json nested = Json::object()
                          .set("full_attention", Json::object().set("rope_type", "default"))
                          .set("sliding_attention", Json::object().set("rope_type", "default"));
  EXPECT_THAT(with(nested), AllOf(HasSubstr("\"rope_parameters\" has a table of its own for \"full_attention\""),
                                  HasSubstr("not supported")));
}

// tests/golden/rope_keys.json: what transformers makes of each spelling. Two tables that differ are refused; all else
// is read as it is read there.
TEST(ConfigKeys, OfRotaryPositionsMeanWhatTheyMeanToTransformers) {
  const Json golden = read_configuration(test::golden("rope_keys.json"));
  int refused = 0;
  for (const Json& spelling : golden.at("spellings").items()) {
    Json json = test::to_json({.layers = 4})
                    .set("model_type", spelling.at("model_type").as_string())
                    .set("max_position_embeddings", 256);
    for (const char* key : {"rope_theta", "rope_scaling", "rope_parameters"}) {
      const Json* value = spelling.at("keys").find(key);
      json.set(key, value ? *value : Json());
    }
    if (const std::string fault = fault_of(json); !fault.empty()) {
      EXPECT_THAT(fault, HasSubstr("\"rope_scaling\" and \"rope_parameters\" contradict each other"))
          << spelling.dump();
      ++refused;
      continue;
    }
    const Json& read = spelling.at("read");
    const RopeConfig rope = parse_model_config(json, "config.json").rope;
    EXPECT_EQ(rope.theta, read.at("rope_theta").as_number()) << spelling.dump();
    const bool is_scaled = read.at("rope_type").as_string() == "llama3";
    EXPECT_EQ(rope.factor, is_scaled ? read.at("factor").as_number() : 1) << spelling.dump();
    if (!is_scaled) continue;
    EXPECT_EQ(rope.low_freq_factor, read.at("low_freq_factor").as_number()) << spelling.dump();
    EXPECT_EQ(rope.high_freq_factor, read.at("high_freq_factor").as_number()) << spelling.dump();
    EXPECT_EQ(rope.original_max_position_embeddings, read.at("original_max_position_embeddings").as_integer())
        << spelling.dump();
  }
  EXPECT_EQ(refused, 8) << "four spellings of each of two families say two things";
}

TEST(ConfigKeys, OfWindowsAreReadOrRefused) {
  const auto windows_of = [](const Json& json) {
    std::vector<int64_t> windows;
    const ModelConfig config = parse_model_config(json, "config.json");
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
      windows.push_back(config.attention_of(layer).window);
    return windows;
  };
  using Windows = std::vector<int64_t>;
  EXPECT_EQ(windows_of(config_of("mistral")), Windows(4, 4096));
  EXPECT_EQ(windows_of(config_of("mistral").set("sliding_window", 5)), Windows(4, 5));
  EXPECT_EQ(windows_of(config_of("mistral").set("sliding_window", Json())), Windows(4, 0));
  Json qwen = config_of("qwen2").set("sliding_window", 5).set("max_window_layers", 1);
  EXPECT_EQ(windows_of(qwen), Windows(4, 0)) << "windows are not on";
  qwen.set("use_sliding_window", true);
  EXPECT_EQ(windows_of(qwen), (Windows{0, 5, 5, 5}));
  const Json types = Json::array().push_back("sliding_attention").push_back("full_attention");
  EXPECT_THAT(fault_of(Json(qwen).set("layer_types", types)), HasSubstr("expected a list of 4"));
  const Json four = Json(types).push_back("full_attention").push_back("sliding_attention");
  EXPECT_EQ(windows_of(Json(qwen).set("layer_types", four)), (Windows{5, 0, 0, 5}));
  EXPECT_THAT(fault_of(config_of("qwen3").set("layer_types", four)), HasSubstr("there is no window"));
  const Json other = Json(types).push_back("full_attention").push_back("chunked_attention");
  EXPECT_THAT(fault_of(Json(qwen).set("layer_types", other)),
              AllOf(HasSubstr("chunked_attention"), HasSubstr("not supported")));
}

TEST(ConfigKeys, TellWhichLayersOfSmolLM3AreRotary) {
  const auto rotary = [](const Json& json) {
    std::vector<bool> list;
    const ModelConfig config = parse_model_config(json, "config.json");
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
      list.push_back(config.attention_of(layer).rotary);
    return list;
  };
  EXPECT_EQ(rotary(config_of("smollm3")), (std::vector{true, true, true, false}));
  EXPECT_EQ(rotary(config_of("smollm3").set("no_rope_layer_interval", 2)), (std::vector{true, false, true, false}));
  const Json list = Json::array().push_back(0).push_back(1).push_back(1).push_back(0);
  EXPECT_EQ(rotary(config_of("smollm3").set("no_rope_layers", list)), (std::vector{false, true, true, false}));
  EXPECT_THAT(fault_with("smollm3", "no_rope_layers", Json::array().push_back(1)), HasSubstr("a list of 4 numbers"));
  EXPECT_THAT(fault_with("smollm3", "no_rope_layers", Json(list).items().empty() ? Json() : Json("all")),
              HasSubstr("no_rope_layers"));
}

// A model with other layers keeps each layer's own kind of attention, in numbers and in the config.json that it writes.
TEST(ConfigKeys, StayWithTheirLayersWhenOthersGo) {
  Json json = config_of("smollm3").set("use_sliding_window", true).set("sliding_window", 6);
  const ModelConfig base = parse_model_config(json, "config.json");
  const std::vector<BaseLayer> layers = {{.original = 0}, {.original = 3}};
  const ModelConfig fewer = config_of_layers(base, layers);
  EXPECT_EQ(fewer.attention,
            (std::vector<LayerAttention>{{.window = 0, .rotary = true}, {.window = 6, .rotary = false}}));
  const ModelConfig again = parse_model_config(fewer.source, "config.json");
  EXPECT_EQ(again.attention, fewer.attention);
}

// tests/golden/defaults.json is of transformers' classes, 8 layers and 8 heads of a hidden size of 64.
TEST(ConfigKeys, ThatAreMissingMeanWhatTheyMeanToTransformers) {
  const Json all = read_configuration(test::golden("defaults.json"));
  for (const ModelFamily& family : model_families()) {
    const Json& expected = all.at(family.name);
    Json json = Json::object()
                    .set("model_type", std::string(family.name))
                    .set("vocab_size", 71)
                    .set("hidden_size", 64)
                    .set("intermediate_size", 96)
                    .set("num_hidden_layers", 8)
                    .set("num_attention_heads", 8);
    const int64_t kv_heads = expected.at("num_key_value_heads").as_integer();
    if (kv_heads > 8) {  // the class's default does not go with 8 heads
      EXPECT_THAT(fault_of(json), HasSubstr(fmt::format("num_key_value_heads={}", kv_heads)));
      json.set("num_key_value_heads", 8);
    }
    const ModelConfig c = parse_model_config(json, "config.json");
    EXPECT_EQ(c.num_key_value_heads, std::min<int64_t>(kv_heads, 8));
    const Json* head_dim = expected.find("head_dim");
    EXPECT_EQ(c.head_dim, head_dim ? head_dim->as_integer() : 8) << family.name;
    EXPECT_EQ(c.max_position_embeddings, expected.at("max_position_embeddings").as_integer()) << family.name;
    EXPECT_EQ(c.rms_norm_eps, expected.at("rms_norm_eps").as_number()) << family.name;
    EXPECT_EQ(c.initializer_range, expected.at("initializer_range").as_number()) << family.name;
    EXPECT_EQ(c.tie_word_embeddings, expected.at("tie_word_embeddings").as_bool()) << family.name;
    EXPECT_EQ(c.rope.theta, expected.at("rope_theta").as_number()) << family.name;
    const Json* window = family.name == "mistral" ? expected.find("sliding_window") : nullptr;
    for (int64_t layer = 0; layer < 8; ++layer) {
      EXPECT_EQ(c.attention_of(layer).window, window ? window->as_integer() : 0) << family.name;
      const Json* rotary = expected.find("no_rope_layers");
      EXPECT_EQ(c.attention_of(layer).rotary, !rotary || rotary->items()[layer].as_integer() == 1) << family.name;
    }
  }
}

}  // namespace
}  // namespace tessera
