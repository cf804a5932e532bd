// A config.json and weights that do not say what they should: refused with the file, the key and the reason.

#include "model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "io/safetensors.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string fault_of(const Json& config) {
  try {
    parse_model_config(config, "config.json");
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

std::string fault_with(const std::string& key, Json value) {
  return fault_of(test::to_json({}).set(key, std::move(value)));
}

TEST(ModelConfig, RefusesSizesThatNoModelHas) {
  EXPECT_EQ(fault_of(test::to_json({})), "");
  EXPECT_EQ(fault_with("num_hidden_layers", int64_t{1} << 31),
            "config.json: \"num_hidden_layers\" is 2147483648, expected a whole number, 1 to 10000");
  EXPECT_EQ(fault_with("hidden_size", 0),
            "config.json: \"hidden_size\" is 0, expected a whole number, 1 to 2147483648");
  test::TinyConfig huge;
  huge.vocab_size = huge.hidden_size = int64_t{1} << 31;
  EXPECT_THAT(fault_of(test::to_json(huge)), HasSubstr("these sizes make a model of about 9e+18 parameters"));
}

TEST(ModelConfig, RefusesNumbersThatLeaveNoArithmetic) {
  for (const char* key : {"rope_theta", "rms_norm_eps", "initializer_range"})
    for (const Json& value : {Json(0), Json(-1.5), Json("many")})
      EXPECT_EQ(fault_with(key, value),
                fmt::format("config.json: \"{}\" is {}, expected a number above 0", key, value.dump()));
}

TEST(ModelConfig, NamesTheFileWhoseValueHasAnotherType) {
  EXPECT_EQ(fault_with("tie_word_embeddings", "yes"),
            "config.json: \"tie_word_embeddings\" is \"yes\", expected true or false");
  EXPECT_EQ(fault_with("rope_scaling", Json::object().set("rope_type", 5)),
            "config.json: \"rope_scaling.rope_type\" is 5: this changes the model's arithmetic and is not supported\n"
            "  supported: rope_type \"default\" or \"llama3\"; rope_theta stays as it is");
}

class Weights : public testing::Test {
 protected:
  using Tensors = std::vector<std::pair<std::string, ConstView>>;
  /// Saves a drawn model's weights, changed, and reads them as a model.
  std::string fault_of_reading(const std::function<void(Tensors&)>& change, const test::TinyConfig& config = {}) {
    Model::Settings settings = test::tiny_settings(folder_.path(), config);
    Model model(settings);
    Tensors tensors;
    for (size_t i = 0; i < model.decoder().specs().size(); ++i)
      if (const WeightSpec& spec = model.decoder().specs()[i]; spec.storage == spec.name)
        tensors.emplace_back(spec.name, model.decoder().weight(static_cast<int>(i))->direct({&model.pool()}));
    change(tensors);
    write_safetensors(file_, tensors);
    settings.model.init = "pretrained";
    try {
      Model read(settings);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
  test::TemporaryFolder folder_;
  fs::path file_ = folder_ / "model.safetensors";
};

TEST_F(Weights, AreRefusedWhenTheConfigHasNoPlaceForThem) {
  Tensor extra({4}, DType::f32);
  const std::string fault =
      fault_of_reading([&](Tensors& t) { t.emplace_back("model.layers.3.input_layernorm.weight", extra.view()); });
  EXPECT_EQ(fault,
            file_.string() +
                ": tensor \"model.layers.3.input_layernorm.weight\" [4] has no place in the model of config.json: "
                "num_hidden_layers is 3, the files have 4 layers\n"
                "  config.json and the weights do not belong together");
  EXPECT_THAT(
      fault_of_reading([&](Tensors& t) { t.emplace_back("model.layers.0.self_attn.q_proj.bias", extra.view()); }),
      HasSubstr("q_proj.bias"));
}

TEST_F(Weights, MayHoldWhatFollowsFromTheRest) {
  Tensor table({2}, DType::f32);
  test::TinyConfig tied;
  tied.tied = true;
  EXPECT_EQ(fault_of_reading(
                [&](Tensors& t) {
                  t.emplace_back("model.layers.0.self_attn.rotary_emb.inv_freq", table.view());
                  const ConstView embedding = t.front().second;  // the head that is tied to it holds the same
                  t.emplace_back("lm_head.weight", embedding);
                },
                tied),
            "");
}

TEST_F(Weights, OfAnotherShapeAreToldWithTheirFile) {
  Tensor narrow({15}, DType::f32);
  EXPECT_EQ(fault_of_reading([&](Tensors& t) {
              for (auto& [name, view] : t)
                if (name == "model.norm.weight") view = narrow.view();
            }),
            file_.string() +
                ": tensor \"model.norm.weight\" is [15], config.json says [16]: hidden_size (16)\n"
                "  config.json and the weights do not belong together");
}

TEST(DecoderParts, EachOccursOnce) {
  const test::TemporaryFolder folder;
  test::tiny_settings(folder.path());
  const std::vector<WeightSpec> specs = weight_specs(read_model_config(folder / "config.json"));
  const DecoderParts parts = decoder_parts(specs);
  ASSERT_EQ(parts.blocks.size(), 3u);
  EXPECT_EQ(specs[static_cast<size_t>(parts.blocks[2].gate)].name, "model.layers.2.mlp.gate_proj.weight");
  for (size_t i = 0; i < specs.size(); ++i) {
    std::vector<WeightSpec> others = specs;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_THROW(decoder_parts(others), InternalError) << "without " << specs[i].name;
    others.insert(others.begin(), 2, specs[i]);
    EXPECT_THROW(decoder_parts(others), InternalError) << "twice " << specs[i].name;
  }
}

}  // namespace
}  // namespace tessera
