// Adapters that are read beside a model: the bits of a model that has them for its own, and what is refused.
#include "model/saved_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "io/files.h"
#include "model/adapter_io.h"
#include "model/export.h"
#include "support/engine.h"
#include "support/folds.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::golden;
using testing::HasSubstr;
using testing::StartsWith;

AdapterConfig lora(int64_t rank, std::vector<std::string> targets = {"all"}) {
  AdapterConfig config;
  config.method = "lora";
  config.rank = rank;
  config.targets = std::move(targets);
  config.dropout = 0.1;
  return config;
}

AdapterConfig mos(const std::string& draw = "random") {
  AdapterConfig config;
  config.method = "mos";
  config.equivalent_rank = 2;
  config.shards = draw == "pure" ? 1 : 2;
  config.draw = draw;
  config.index_seed = 5;
  if (draw != "pure") config.rank = 3;
  return config;
}

class SavedAdapters : public testing::Test {
 protected:
  /// A model with an adapter of its own, drawn by the seed.
  std::unique_ptr<Model> trained(const AdapterConfig& config, uint32_t seed = 3) {
    auto model = test::load_model(golden("gqa"), 64, config);
    test::fill_all_normal(model->pool(), seed, 0.3);
    model->assemble(own_.ctx);
    return model;
  }
  fs::path saved(const AdapterConfig& config, uint32_t seed = 3) {
    const fs::path folder = folder_ / fmt::format("{}", ++folders_);
    save_adapter(folder, *trained(config, seed));
    return folder;
  }
  /// Logits of a document whose rows read the adapter.
  Tensor logits(Model& model, BoundAdapter* adapter) {
    const std::vector<int32_t> ids = {1, 5, 9, 2, 20, 7}, positions = {0, 1, 2, 3, 4, 5};
    const auto scope = own_.ctx.scratch.scope();
    const AttentionSegment segment{0, 6, 0, 6};
    const RowGroup group{0, 6, adapter};
    const TokenBatch batch{ids, positions, {}, {&segment, 1}, {&group, 1}};
    const Pass pass{own_.ctx, batch, {&model.pool()}};
    PackedAttention attention;
    Tensor logits({6, model.config().vocab_size}, DType::f32);
    model.decoder().logits(pass, model.decoder().forward(pass, attention), positions, logits);
    return logits;
  }
  std::string fault(const fs::path& folder, const fs::path& base = golden("gqa")) {
    try {
      const auto model = test::load_model(base, 64);
      const auto adapter = open_adapter(folder, "a.toml:3:1");
      const LoadedAdapter loaded(*adapter, *model);
      adapter->require_base(*model);
    } catch (const UserError& error) {
      return error.what();
    }
    return "nothing was thrown";
  }
  void edit(const fs::path& file, const std::string& from, const std::string& to) {
    std::string text = test::read_file(file);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    test::write_file(file, text.replace(at, from.size(), to));
  }

  test::OwnContext own_;
  test::TemporaryFolder folder_;
  int folders_ = 0;
};

TEST_F(SavedAdapters, HaveTheBitsOfAModelThatHasThemForItsOwn) {
  const auto base = test::load_model(golden("gqa"), 64);
  const Tensor plain = logits(*base, nullptr);
  for (const AdapterConfig& config : {lora(3), lora(2, {"q_proj", "mlp.down_proj"}), mos(), mos("tied"), mos("pure")}) {
    const auto own = trained(config);
    save_adapter(folder_ / "adapter", *own);
    const auto adapter = open_adapter(folder_.path(), "");  // a run's folder
    adapter->require_base(*base);
    EXPECT_EQ(adapter->method(), config.method);
    LoadedAdapter loaded(*adapter, *base);
    loaded.bound().assemble(own_.ctx);
    const Tensor got = logits(*base, &loaded.bound());
    EXPECT_TRUE(test::same_bytes(got.view(), logits(*own, own->bound_adapter()).view())) << config.method;
    EXPECT_FALSE(test::same_bytes(got.view(), plain.view())) << "it does nothing";
    EXPECT_TRUE(test::same_bytes(logits(*base, nullptr).view(), plain.view())) << "the base is another one";
  }
}

TEST_F(SavedAdapters, OfPeftHaveTheBitsOfTheMatricesThatTheyHold) {
  const auto base = test::load_model(golden("gqa"), 64);
  AdapterConfig by_root = lora(4);
  by_root.scale = "rs";
  by_root.alpha = 3;
  for (const AdapterConfig& config : {lora(3), by_root, mos()}) {
    const auto own = trained(config);
    export_peft(folder_ / "peft", *own);
    const auto adapter = open_adapter(folder_ / "peft", "");
    EXPECT_EQ(adapter->method(), "PEFT lora");
    EXPECT_EQ(adapter->rank(), *config.rank);
    LoadedAdapter loaded(*adapter, *base);
    loaded.bound().assemble(own_.ctx);
    EXPECT_TRUE(test::same_bytes(logits(*base, &loaded.bound()).view(), logits(*own, own->bound_adapter()).view()))
        << config.method;
  }
}

TEST_F(SavedAdapters, OfPeftsOwnMakingAreRead) {
  const auto model = test::load_model(golden("lora"), 64);
  const auto adapter = open_adapter(golden("lora") / "adapter", "");
  EXPECT_EQ(adapter->rank(), 4);
  LoadedAdapter loaded(*adapter, *model);
  const auto golden_run = SafetensorsReader::open(golden("lora") / "golden.safetensors");
  const std::string name = "final.base_model.model.model.layers.1.mlp.down_proj.lora_";
  const auto deltas = loaded.bound().deltas(model->decoder().block_weights(1).down);
  ASSERT_EQ(deltas.size(), 1);
  EXPECT_EQ(deltas[0].scale, 2);
  EXPECT_TRUE(test::same_bytes(deltas[0].a, golden_run.at(name + "A.weight")));
  const ConstView b = golden_run.at(name + "B.weight");
  ASSERT_EQ(deltas[0].bt.shape, (Shape{4, b.shape[0]}));
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t j = 0; j < b.shape[0]; ++j) EXPECT_EQ(deltas[0].bt.row<float>(i)[j], b.row<float>(j)[i]);
}

TEST_F(SavedAdapters, OfPeftHaveRanksAndScalesByTheEndsOfTheirPaths) {
  export_peft(folder_ / "peft", *trained(lora(2, {"q_proj"})));
  const fs::path config = folder_ / "peft/adapter_config.json";
  edit(config, "\"alpha_pattern\": {}",
       R"("alpha_pattern": {"layers.0.self_attn.q_proj": 6, "^self_attn.q_proj": 7, "_proj": 8, "q_proj": 9})");
  const auto model = test::load_model(golden("gqa"), 64);
  const auto adapter = open_adapter(folder_ / "peft", "");
  LoadedAdapter loaded(*adapter, *model);
  EXPECT_EQ(loaded.bound().deltas(model->decoder().block_weights(0).q)[0].scale, 3);
  EXPECT_EQ(loaded.bound().deltas(model->decoder().block_weights(1).q)[0].scale, 4.5f);
  edit(config, "\"rank_pattern\": {}", R"("rank_pattern": {"q_proj": 3})");
  EXPECT_THAT(fault(folder_ / "peft"), HasSubstr("and adapter_config.json says rank 3"));
}

/// Gives deltas of the base itself, which begin at zero, other numbers.
void fill_zeros(ParameterPool& pool) {
  for (SlotId id = 0; id < pool.count(); ++id) {
    if (pool.is_trainable(id)) continue;
    const auto numbers = pool.values(id).as<float>();
    if (std::all_of(numbers.begin(), numbers.end(), [](float x) { return x == 0; }))
      test::fill_normal(pool.mutable_values(id), static_cast<uint32_t>(id), 0.3);
  }
}

TEST_F(SavedAdapters, ComeBehindTheDeltasOfAFoldedBase) {
  Model::Settings settings = test::stored_settings(test::dense_folder(folder_ / "dense", {.layers = 6}));
  test::fold_by({.plan = test::six_layers({ChildLevel::lora, 2}), .state = {}}, settings);
  Model base(settings);
  fill_zeros(base.pool());
  base.assemble(own_.ctx);
  ASSERT_TRUE(base.bound_adapter());
  for (const AdapterConfig& config : {lora(3), mos()}) {
    settings.adapter = config;
    Model own(settings);
    fill_zeros(own.pool());
    test::fill_all_normal(own.pool(), 7, 0.3);
    own.assemble(own_.ctx);
    save_adapter(folder_ / "adapter", own);
    const auto adapter = open_adapter(folder_ / "adapter", "");
    adapter->require_base(base);
    LoadedAdapter loaded(*adapter, base);
    loaded.bound().assemble(own_.ctx);
    const Tensor got = logits(base, &loaded.bound());
    EXPECT_TRUE(test::same_bytes(got.view(), logits(own, own.bound_adapter()).view())) << config.method;
    EXPECT_FALSE(test::same_bytes(got.view(), logits(base, base.bound_adapter()).view()));
    EXPECT_FALSE(test::same_bytes(logits(base, nullptr).view(), logits(base, base.bound_adapter()).view()));
  }
}

TEST_F(SavedAdapters, AreOneAdapterWhereTheirContentsAreOne) {
  const fs::path a = saved(lora(2), 3), same = saved(lora(2), 3), other = saved(lora(2), 4);
  AdapterConfig louder = lora(2);
  louder.alpha = 17;
  const fs::path loud = saved(louder, 3);
  const auto content = [](const fs::path& folder) { return open_adapter(folder, "")->content(); };
  EXPECT_EQ(content(a), content(same));
  EXPECT_NE(content(a), content(other));
  EXPECT_NE(content(a), content(loud));
  AdapterConfig dropped = lora(2);
  dropped.dropout = 0.5;
  EXPECT_EQ(content(a), content(saved(dropped, 3)));
}

TEST_F(SavedAdapters, AreCountedWithoutTheirMemory) {
  const fs::path folder = saved(mos());
  Model::Settings settings;
  settings.model.path = golden("gqa");
  settings.max_position = 64;
  settings.memory = Memory::counted;
  Model counted(settings);
  settings.memory = Memory::held;
  Model held(settings);
  const auto adapter = open_adapter(folder, "");
  const LoadedAdapter a(*adapter, counted), b(*adapter, held);
  EXPECT_EQ(a.bytes(), b.bytes());
  const auto own = trained(mos());
  // Beside the numbers of the pools, the matrices that are made of them; a training has their gradients, too.
  EXPECT_EQ(b.bytes(), own->bound_adapter()->assembled_bytes() / 2 + 4 * own->pool().trainable_count());
}

TEST_F(SavedAdapters, ThatDoNotFitAreRefused) {
  EXPECT_THAT(fault(folder_ / "nowhere"), HasSubstr("a.toml:3:1: the adapter's folder \""));
  EXPECT_THAT(fault(folder_ / "nowhere"), HasSubstr("nowhere\" does not exist\n  name the folder of an adapter"));
  EXPECT_THAT(fault(folder_.path()), HasSubstr("holds neither adapter.json nor adapter_config.json"));
  EXPECT_THAT(fault(saved(lora(2)), golden("mistral")), HasSubstr("belongs to another config.json"));
  EXPECT_THAT(fault(saved(lora(2)), golden("mistral")), StartsWith("a.toml:3:1: "));

  const fs::path cut = saved(lora(2));
  fs::resize_file(cut / "lora.safetensors", fs::file_size(cut / "lora.safetensors") - 4);
  EXPECT_THAT(fault(cut), HasSubstr("lora.safetensors"));
  const fs::path altered = saved(lora(2));
  edit(altered / "adapter.json", "\"sha256\": \"", "\"sha256\": \"0");
  EXPECT_THAT(fault(altered), HasSubstr("its SHA-256 is"));
  const fs::path redrawn = saved(mos());
  edit(redrawn / "adapter.json", "\"index_seed\": 5", "\"index_seed\": 6");
  EXPECT_THAT(fault(redrawn), HasSubstr("the index tables were drawn in another way"));
  const fs::path wild = saved(mos());
  edit(wild / "adapter.json", "\"shards\": 2", "\"shards\": 0");
  EXPECT_THAT(fault(wild), HasSubstr("adapter.json: \"shards\" is 0, expected 1 to 1024"));
  const fs::path larger = saved(lora(2));
  edit(larger / "adapter.json", "\"rank\": 2", "\"rank\": 4");
  EXPECT_THAT(fault(larger), HasSubstr("is f32 [2, "));
  const fs::path base = saved(lora(2));
  edit(base / "adapter.json", "\"base_fingerprint\": \"", "\"base_fingerprint\": \"0");
  EXPECT_THAT(fault(base), HasSubstr("was saved with base_fingerprint"));

  auto model = trained(lora(2));
  save_adapter(folder_ / "broken", *model);
  test::slot_of(model->pool(), "lora.model.layers.1.self_attn.k_proj.a").as<float>()[3] =
      std::numeric_limits<float>::infinity();
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const TrainableSlot& slot : model->pool().trainable().slots)
    tensors.emplace_back(slot.name, test::slot_of(model->pool(), slot.name));
  write_safetensors(folder_ / "broken/lora.safetensors", tensors);
  Json json = Json::parse(test::read_file(folder_ / "broken/adapter.json"), "");
  json.set("sha256", sha256_of_file(folder_ / "broken/lora.safetensors"));
  test::write_file(folder_ / "broken/adapter.json", json.dump());
  EXPECT_THAT(fault(folder_ / "broken"),
              HasSubstr("the adapter holds inf: slot lora.model.layers.1.self_attn.k_proj.a"));
}

TEST_F(SavedAdapters, OfPeftThatAreMoreThanALoraAreRefused) {
  const auto model = trained(lora(2));
  const fs::path folder = folder_ / "peft", config = folder / "adapter_config.json";
  const auto after = [&](const std::string& from, const std::string& to) {
    export_peft(folder, *model);
    edit(config, from, to);
    return fault(folder);
  };
  EXPECT_THAT(after("\"LORA\"", "\"IA3\""),
              HasSubstr("adapter_config.json: \"peft_type\" is \"IA3\", and \"LORA\" is"));
  EXPECT_THAT(after("\"bias\": \"none\"", "\"bias\": \"all\""), HasSubstr("trained biases are not read"));
  EXPECT_THAT(after("\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa\""),
              HasSubstr("\"pissa\", which changes the base's weights"));
  for (const char* more : {"\"use_dora\": true", "\"modules_to_save\": [\"lm_head\"]", "\"fan_in_fan_out\": true"})
    EXPECT_THAT(after("\"fan_in_fan_out\": false", more), HasSubstr(", which is not read\n  export it from PEFT"));
  EXPECT_THAT(after("\"r\": 2", "\"r\": 3"), HasSubstr("and adapter_config.json says rank 3"));
  EXPECT_EQ(after("\"bias\": \"none\"", "\"modules_to_save\": null, \"use_dora\": false, \"loftq_config\": {}"),
            "nothing was thrown");

  // Of another model: other modules, other shapes.
  EXPECT_THAT(fault(golden("lora") / "adapter"), HasSubstr("it belongs to another base model"));
  export_peft(folder, *model);
  std::vector<std::pair<std::string, ConstView>> tensors;
  const auto reader = SafetensorsReader::open(folder / "adapter_model.safetensors");
  for (const std::string& name : reader.names()) tensors.emplace_back(name, reader.at(name));
  const auto with = [&](const std::string& name, const std::string& more) {
    auto some = tensors;
    for (size_t i = 0; i < tensors.size(); ++i)
      if (some[i].first == name) some.emplace_back(more, some[i].second);
    write_safetensors(folder_ / "other.safetensors", some);
    fs::rename(folder_ / "other.safetensors", folder / "adapter_model.safetensors");
    return fault(folder);
  };
  const std::string module = "base_model.model.model.layers.0.self_attn.q_proj";
  EXPECT_THAT(with(module + ".lora_A.weight", module + ".lora_magnitude_vector"), HasSubstr("is no matrix of a LoRA"));
  EXPECT_THAT(with(module + ".lora_A.weight", module + "x.lora_A.weight"), HasSubstr("is there without"));
  fs::remove(folder / "adapter_model.safetensors");
  EXPECT_THAT(fault(folder), HasSubstr("holds no adapter_model.safetensors"));
}

}  // namespace
}  // namespace tessera
