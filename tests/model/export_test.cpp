#include "model/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "io/files.h"
#include "support/golden.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

const std::vector<int32_t> kText = {3, 14, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7};

AdapterConfig adapter(const std::string& method) {
  AdapterConfig config;
  config.method = method;
  config.equivalent_rank = 2;
  config.rank = 3;
  config.shards = 1;
  return config;
}

class Export : public testing::Test {
 protected:
  static Model::Settings golden_settings(const std::string& name, const std::string& method = "none") {
    Model::Settings settings;
    settings.model.path = test::golden(name);
    settings.adapter = adapter(method);
    settings.max_position = 64;
    return settings;
  }
  /// A model whose adapter changes its logits visibly.
  std::unique_ptr<Model> adapted(const Model::Settings& settings) {
    auto model = std::make_unique<Model>(settings);
    test::fill_all_normal(model->pool(), 5, 0.2);
    model->assemble(own_.ctx);
    return model;
  }
  std::unique_ptr<Model> reload(const fs::path& folder) {
    Model::Settings settings;
    settings.model.path = folder;
    settings.max_position = 64;
    return std::make_unique<Model>(settings);
  }
  static double largest_difference(const ConstView& a, const ConstView& b) {
    double difference = 0, largest = 0;
    for (int64_t i = 0; i < b.shape.count(); ++i) {
      difference = std::max(difference, std::abs(element(a, i) - element(b, i)));
      largest = std::max(largest, std::abs(element(b, i)));
    }
    return difference / largest;
  }
  std::string fault(const fs::path& folder, Model& model) {
    try {
      export_merged(folder, model, model.options().path, own_.ctx);
    } catch (const UserError& error) {
      return error.message();
    }
    return "nothing was thrown";
  }

  test::TemporaryFolder folder_;
  test::OwnContext own_;
};

TEST_F(Export, MergedModelComputesWhatTheAdapterComputes) {
  for (const char* method : {"mos", "lora"})
    for (const char* name : {"gqa", "mqa_tied", "mha_odd"}) {
      const auto plain = reload(test::golden(name));
      const auto model = adapted(golden_settings(name, method));
      export_merged(folder_ / "out", *model, test::golden(name), own_.ctx);
      const auto merged = reload(folder_ / "out");
      const Tensor with_adapter = test::logits_of(own_.ctx, *model, kText);
      EXPECT_LT(largest_difference(test::logits_of(own_.ctx, *merged, kText).view(), with_adapter.view()), 1e-5)
          << name << " " << method;
      EXPECT_GT(largest_difference(test::logits_of(own_.ctx, *plain, kText).view(), with_adapter.view()), 1e-2);
    }
}

TEST_F(Export, MergedWeightIsTheBaseAndTheScaledProductExactly) {
  test::TinyConfig config;
  Model::Settings settings = test::tiny_settings(folder_.path(), config);
  settings.adapter = adapter("mos");
  settings.adapter.alpha = 6;  // scale 2
  Model model(settings);
  for (const TrainableSlot& slot : model.pool().trainable().slots)
    test::fill_integers(test::slot_of(model.pool(), slot.name), static_cast<uint32_t>(slot.begin));
  const int index = model.decoder().block_weights(1).o;
  test::fill_integers(TensorView(model.decoder().weight(index)->direct({&model.pool()})), 3);
  export_merged(folder_ / "out", model, "", own_.ctx);
  const auto reader = SafetensorsReader::open(folder_ / "out" / "model.safetensors");
  const ConstView merged = reader.at("model.layers.1.self_attn.o_proj.weight"),
                  base = model.decoder().weight(index)->direct({&model.pool()});
  const auto& m = model.bound_adapter()->deltas(index).front();
  for (int64_t o = 0; o < merged.shape[0]; ++o)
    for (int64_t i = 0; i < merged.shape[1]; ++i) {
      float sum = base.row<float>(o)[i];
      for (int64_t j = 0; j < 3; ++j) sum += 2 * m.bt.row<float>(j)[o] * m.a.row<float>(j)[i];
      ASSERT_EQ(merged.row<float>(o)[i], sum);
    }
}

TEST_F(Export, LeavesTheBaseAsItIs) {
  const auto model = adapted(golden_settings("bf16", "mos"));
  const auto& specs = model->decoder().specs();
  const auto bytes_of = [&](size_t i) {
    const ConstView w = model->decoder().weight(static_cast<int>(i))->direct({&model->pool()});
    return std::string(static_cast<const char*>(w.data), static_cast<size_t>(w.bytes()));
  };
  std::vector<std::string> before;
  for (size_t i = 0; i < specs.size(); ++i) before.push_back(bytes_of(i));
  export_merged(folder_ / "out", *model, "", own_.ctx);
  for (size_t i = 0; i < specs.size(); ++i) EXPECT_EQ(bytes_of(i), before[i]) << specs[i].name;
}

TEST_F(Export, KeepsTheSourcesDTypeAndTheBytesOfWeightsItDoesNotChange) {
  for (const auto& [name, dtype, word] :
       {std::tuple{"bf16", DType::bf16, "bfloat16"}, std::tuple{"f16_tied", DType::f16, "float16"}}) {
    auto settings = golden_settings(name, "mos");
    settings.adapter.targets = {"q_proj"};
    const auto model = adapted(settings);
    export_merged(folder_ / "out", *model, "", own_.ctx);
    const auto source = SafetensorsReader::open_folder(test::golden(name)),
               written = SafetensorsReader::open_folder(folder_ / "out");
    EXPECT_EQ(written.names(), source.names());
    for (const std::string& tensor : written.names()) {
      EXPECT_EQ(written.at(tensor).dtype, dtype);
      EXPECT_EQ(test::same_bytes(written.at(tensor), source.at(tensor)), tensor.find("q_proj") == std::string::npos)
          << tensor;
    }
    const Json config = Json::parse(test::read_file(folder_ / "out" / "config.json"), "");
    EXPECT_EQ(config.at("torch_dtype").as_string(), word);
    EXPECT_EQ(written.metadata().at("format"), "pt");
    EXPECT_NO_THROW(test::logits_of(own_.ctx, *reload(folder_ / "out"), kText));
  }
}

TEST_F(Export, RoundsAMergedWeightOnceFromF32) {
  auto settings = golden_settings("bf16", "lora");
  const auto model = adapted(settings);
  export_merged(folder_ / "out", *model, "", own_.ctx);
  const auto written = SafetensorsReader::open_folder(folder_ / "out");
  const int index = model->decoder().block_weights(0).down;
  const ConstView base = model->decoder().weight(index)->direct({&model->pool()}),
                  merged = written.at("model.layers.0.mlp.down_proj.weight");
  const auto& m = model->bound_adapter()->deltas(index).front();
  for (int64_t o = 0; o < base.shape[0]; ++o)
    for (int64_t i = 0; i < base.shape[1]; ++i) {
      double sum = element(base, o * base.shape[1] + i);
      for (int64_t j = 0; j < m.a.shape[0]; ++j)
        sum += static_cast<double>(m.scale) * m.bt.row<float>(j)[o] * m.a.row<float>(j)[i];
      // half a unit in the last of bf16's 8 digits, and f32's own sum
      ASSERT_NEAR(element(merged, o * base.shape[1] + i), sum, std::abs(sum) * (1.0 / 256 + 1e-5) + 1e-6);
    }
}

TEST_F(Export, WritesATiedHeadOnce) {
  export_merged(folder_ / "out", *adapted(golden_settings("mqa_tied", "lora")), "", own_.ctx);
  const auto written = SafetensorsReader::open_folder(folder_ / "out");
  EXPECT_FALSE(written.contains("lm_head.weight"));
  EXPECT_EQ(written.names(), SafetensorsReader::open_folder(test::golden("mqa_tied")).names());
}

TEST_F(Export, OfFullTrainingHoldsTheTrainedWeights) {
  auto settings = golden_settings("gqa");
  settings.train_base = true;
  Model model(settings);
  test::fill_all_normal(model.pool(), 3, 0.2);
  export_merged(folder_ / "out", model, "", own_.ctx);
  const auto again = reload(folder_ / "out");
  EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, *again, kText), test::logits_of(own_.ctx, model, kText)));
}

TEST_F(Export, WritesTheDTypeThatTheRecipeNames) {
  auto settings = golden_settings("gqa", "mos");
  settings.model.dtype = "f16";
  export_merged(folder_ / "out", *adapted(settings), "", own_.ctx);
  EXPECT_EQ(SafetensorsReader::open_folder(folder_ / "out").at("model.norm.weight").dtype, DType::f16);
  EXPECT_EQ(read_model_config(folder_ / "out" / "config.json").dtype, DType::f16);
}

TEST_F(Export, KeepsEveryOtherKeyOfTheConfig) {
  for (const char* name : {"gqa", "mha_odd"}) {  // mha_odd's says "dtype", as transformers 5 does
    export_merged(folder_ / name, *adapted(golden_settings(name, "mos")), "", own_.ctx);
    const Json before = Json::parse(test::read_file(test::golden(name) / "config.json"), ""),
               after = Json::parse(test::read_file(folder_ / name / "config.json"), "");
    EXPECT_EQ(before.dump(), after.dump());
  }
}

TEST_F(Export, CopiesTheTokenizer) {
  fs::create_directories(folder_ / "tokenizer");
  test::write_file(folder_ / "tokenizer" / "tokenizer.json", "{\"a\": \"\xc3\xa9\"}");
  test::write_file(folder_ / "tokenizer" / "tokenizer_config.json", "{}");
  test::write_file(folder_ / "tokenizer" / "notes.txt", "mine");
  export_merged(folder_ / "out", *adapted(golden_settings("gqa", "mos")), folder_ / "tokenizer", own_.ctx);
  EXPECT_EQ(test::read_file(folder_ / "out" / "tokenizer.json"), "{\"a\": \"\xc3\xa9\"}");
  EXPECT_TRUE(fs::exists(folder_ / "out" / "tokenizer_config.json"));
  EXPECT_FALSE(fs::exists(folder_ / "out" / "notes.txt"));
}

TEST_F(Export, NeverOverwritesTheBaseModel) {
  const fs::path base = folder_ / "base";
  fs::copy(test::golden("gqa"), base, fs::copy_options::recursive);
  fs::create_directory_symlink(base, folder_ / "link");
  Model::Settings settings = golden_settings("gqa", "mos");
  settings.model.path = base;
  const auto model = adapted(settings);
  const std::string before = sha256_of_file(base / "model.safetensors");
  EXPECT_EQ(fault(base, *model), fmt::format("the export would overwrite the base model in \"{}\"", base.string()));
  EXPECT_EQ(fault(folder_ / "link", *model),
            fmt::format("the export would overwrite the base model in \"{}\"", (folder_ / "link").string()));
  EXPECT_EQ(fault(folder_ / "base/../base/.", *model),
            fmt::format("the export would overwrite the base model in \"{}\"", (folder_ / "base/../base/.").string()));
  EXPECT_EQ(sha256_of_file(base / "model.safetensors"), before);
}

TEST_F(Export, RefusesAWeightThatDoesNotFitTheDType) {
  auto settings = golden_settings("f16_tied", "lora");
  settings.adapter.targets = {"q_proj"};
  const auto model = adapted(settings);
  test::fill_integers(test::slot_of(model->pool(), "lora.model.layers.0.self_attn.q_proj.a"), 1, 1000);
  test::fill_integers(test::slot_of(model->pool(), "lora.model.layers.0.self_attn.q_proj.bt"), 2, 1000);
  EXPECT_THAT(fault(folder_ / "out", *model),
              testing::MatchesRegex("element [0-9]+ of \"model.layers.0.self_attn.q_proj.weight\" is -?inf in f16"));
  EXPECT_FALSE(fs::exists(folder_ / "out" / "model.safetensors"));
}

TEST_F(Export, ForPeftHoldsTheAssembledMatricesUnderPeftsNames) {
  const auto model = adapted(golden_settings("lora", "mos"));
  export_peft(folder_ / "peft", *model);
  const auto written = SafetensorsReader::open(folder_ / "peft" / "adapter_model.safetensors");
  const auto theirs = SafetensorsReader::open(test::golden("lora") / "adapter" / "adapter_model.safetensors");
  EXPECT_EQ(written.names(), theirs.names());
  const auto& m = model->bound_adapter()->deltas(model->decoder().block_weights(1).gate).front();
  const std::string name = "base_model.model.model.layers.1.mlp.gate_proj.lora_";
  EXPECT_TRUE(test::same_bytes(written.at(name + "A.weight"), m.a));
  const ConstView b = written.at(name + "B.weight");
  ASSERT_EQ(b.shape, (Shape{48, 3}));
  for (int64_t o = 0; o < 48; ++o)
    for (int64_t j = 0; j < 3; ++j) EXPECT_EQ(b.row<float>(o)[j], m.bt.row<float>(j)[o]);
  const Json config = Json::parse(test::read_file(folder_ / "peft" / "adapter_config.json"), "");
  const Json peft = Json::parse(test::read_file(test::golden("lora") / "adapter" / "adapter_config.json"), "");
  for (const auto& [key, value] : config.members())
    EXPECT_NO_THROW(peft.at(key)) << "PEFT does not know \"" << key << "\"";
  EXPECT_EQ(config.at("target_modules").dump(), peft.at("target_modules").dump());
  EXPECT_EQ(config.at("r").as_integer(), 3);
  EXPECT_EQ(config.at("lora_alpha").as_integer(), 16);
  EXPECT_FALSE(config.at("use_rslora").as_bool());
  EXPECT_EQ(config.at("peft_type").as_string(), "LORA");
}

TEST_F(Export, ForPeftIsLeftAsItWasWhereANumberIsNotFinite) {
  const auto model = adapted(golden_settings("lora", "lora"));
  const fs::path folder = folder_ / "peft";
  export_peft(folder, *model);
  const std::string before = test::read_file(folder / "adapter_model.safetensors");
  const std::string module = "model.layers.1.mlp.gate_proj";
  for (const auto& [slot, matrix, element] : {std::tuple{".a", "A", 7}, {".bt", "B", 7 * 3}})  // B is stored across
    for (const float broken : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      float& number = test::slot_of(model->pool(), "lora." + module + slot).as<float>()[7];
      const float whole = std::exchange(number, broken);
      model->assemble(own_.ctx);
      try {
        export_peft(folder, *model);
        ADD_FAILURE() << slot << " with " << broken << " was exported";
      } catch (const UserError& error) {
        EXPECT_EQ(error.where(), folder.string());
        EXPECT_EQ(
            error.message(),
            fmt::format("the PEFT adapter is not saved: element {} of \"base_model.model.{}.lora_{}.weight\" is {}",
                        element, module, matrix, broken));
      }
      number = whole;
    }
  EXPECT_EQ(test::read_file(folder / "adapter_model.safetensors"), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 1) << "a temporary is left";
}

TEST_F(Export, ForPeftSaysHowTheDeltaIsScaled) {
  auto settings = golden_settings("lora", "lora");
  settings.adapter.scale = "rs";
  settings.adapter.alpha = 4.5;
  settings.adapter.targets = {"v_proj"};
  export_peft(folder_ / "peft", *adapted(settings));
  const Json config = Json::parse(test::read_file(folder_ / "peft" / "adapter_config.json"), "");
  EXPECT_TRUE(config.at("use_rslora").as_bool());
  EXPECT_EQ(config.at("lora_alpha").as_number(), 4.5);
  EXPECT_EQ(config.at("target_modules").dump(), "[\"v_proj\"]");
}

}  // namespace
}  // namespace tessera
