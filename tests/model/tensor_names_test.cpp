// One decoder under the prefixes that people's files have.

#include "model/tensor_names.h"

#include <gmock/gmock.h>

#include "support/base_folder.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

constexpr std::string_view kOwn = "model.";
const std::string kLarger = "language_model.";

/// The trunk's prefix and the head's: as they are called here, by the bare model, and within larger models.
struct Layout {
  std::string trunk, head;
};
const std::vector<Layout> kLayouts = {{"model.", ""},
                                      {"", ""},
                                      {"language_model.model.", kLarger},
                                      {"language_model.model.", ""},
                                      {"model.language_model.", ""},
                                      {"model.language_model.", kLarger},
                                      {"language_model.", kLarger},
                                      {"language_model.", ""}};

std::string renamed(const std::string& name, const Layout& layout) {
  return name.starts_with(kOwn) ? layout.trunk + name.substr(kOwn.size()) : layout.head + name;
}

class TensorNamesOfFiles : public test::BaseFolder {
 protected:
  fs::path in_layout(const Layout& layout, bool tied) {
    const fs::path folder = write_model(fmt::format("base-{}{}{}", layout.trunk, layout.head, tied), tied);
    rename(folder, [&](const std::string& name) { return renamed(name, layout); });
    return folder;
  }
};

TEST_F(TensorNamesOfFiles, EveryUsualPrefixIsTheSameModel) {
  const std::vector<int32_t> text = {3, 14, 1, 5};
  for (const bool tied : {false, true}) {
    Model plain(given(write_model(tied ? "tied" : "untied", tied)));
    const Tensor expected = test::logits_of(own_.ctx, plain, text);
    for (const Layout& layout : kLayouts) {
      Model model(given(in_layout(layout, tied)));
      EXPECT_EQ(model.base_fingerprint(), plain.base_fingerprint()) << layout.trunk;
      EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, model, text), expected)) << layout.trunk;
    }
  }
}

TEST_F(TensorNamesOfFiles, TensorsAreReadWhereTheFileIsMapped) {
  Model model(given(in_layout({"", ""}, false)));
  const SafetensorsReader& source = *model.source();
  for (const std::string& name : source.names()) {
    const auto bytes = source.file_of(name)->bytes();
    const auto* data = static_cast<const std::byte*>(source.at(name).data);
    EXPECT_TRUE(data >= bytes.data() && data < bytes.data() + bytes.size()) << name;
  }
  const int norm = static_cast<int>(model.decoder().specs().size()) - 2;
  ASSERT_EQ(model.decoder().specs()[static_cast<size_t>(norm)].name, "model.norm.weight");
  EXPECT_EQ(model.decoder().weight(norm)->direct({&model.pool()}).data, source.at("model.norm.weight").data);
}

TEST_F(TensorNamesOfFiles, ExportsAndFreezePatternsSpeakOfOwnNames) {
  const fs::path folder = in_layout({"language_model.model.", kLarger}, false);
  Model::Settings settings = given(folder);
  settings.train_base = true;
  settings.freeze = {"^model\\.embed_tokens"};
  Model model(settings);
  EXPECT_FALSE(model.decoder().weight(0)->is_trainable());
  EXPECT_TRUE(model.decoder().weight(1)->is_trainable());
  export_merged(folder_ / "out", model, "", own_.ctx);
  EXPECT_EQ(SafetensorsReader::open_folder(folder_ / "out").names(),
            SafetensorsReader::open_folder(write_model("plain", false)).names());
  settings.freeze = {"^language_model"};
  EXPECT_THAT(fault(settings),
              HasSubstr("is found in no tensor's name\n  names are like \"model.embed_tokens.weight\""));
}

TEST_F(TensorNamesOfFiles, ATiedMatrixThatIsStoredAsTheHeadLeavesThePrefixToTheNorm) {
  Model plain(given(write_model("plain", true)));
  for (const Layout& layout : kLayouts) {
    const fs::path folder = in_layout(layout, true);
    change(folder, [&](Tensors& tensors) {
      auto matrix = tensors.extract(layout.trunk + "embed_tokens.weight");
      matrix.key() = layout.head + "lm_head.weight";
      tensors.insert(std::move(matrix));
    });
    Model model(given(folder));
    EXPECT_EQ(model.base_fingerprint(), plain.base_fingerprint()) << layout.trunk;
  }
}

TEST_F(TensorNamesOfFiles, OldTablesOfPositionsMayLieBeside) {
  for (const Layout& layout : kLayouts) {
    const fs::path folder = in_layout(layout, false);
    change(folder, [&](Tensors& t) { t[layout.trunk + "layers.0.self_attn.rotary_emb.inv_freq"] = zeros({2}); });
    EXPECT_EQ(fault(folder), "no fault") << layout.trunk;
  }
}

TEST_F(TensorNamesOfFiles, AMixtureNamesTwoTensors) {
  const fs::path folder = write_model("base", false);
  const std::string file = (folder / "model.safetensors").string();
  const auto expect_mixture = [&](const std::string& one, const std::string& other) {
    EXPECT_EQ(fault(folder),
              fmt::format("{}: the tensors \"{}\" and \"{}\" have different prefixes\n  all tensors of a model have "
                          "one: give them one, or take the model's own files",
                          file, one, other));
  };
  const std::string last = "layers.2.mlp.up_proj.weight";
  rename(folder, [&](const std::string& name) { return name == "model." + last ? last : name; });
  expect_mixture("model.embed_tokens.weight", last);
  rename(folder, [&](const std::string& name) { return name == last ? kLarger + "model." + last : name; });
  expect_mixture("model.embed_tokens.weight", kLarger + "model." + last);
  rename(folder, [&](const std::string& name) { return name.ends_with(last) ? "model." + last : name; });
  rename(folder, [&](const std::string& name) { return name.starts_with("lm_head") ? kLarger + name : name; });
  expect_mixture("model.embed_tokens.weight", kLarger + "lm_head.weight");
  rename(folder, [&](const std::string& name) { return kLarger + name; });
  change(folder, [&](Tensors& t) { t["lm_head.weight"] = zeros({23, 16}); });
  rename(folder, [&](const std::string& name) {
    return name == kLarger + kLarger + "lm_head.weight" ? kLarger + "lm_head.weight" : name;
  });
  expect_mixture("lm_head.weight", kLarger + "lm_head.weight");
  change(folder, [&](Tensors& t) {
    t.erase("lm_head.weight");
    t["embed_tokens.weight"] = zeros({23, 16});
  });
  expect_mixture("embed_tokens.weight", kLarger + "model.embed_tokens.weight");
}

TEST_F(TensorNamesOfFiles, ATensorUnderTwoPrefixesIsAMixture) {
  for (const Layout& layout : kLayouts)
    for (const Layout& other : kLayouts) {
      if (layout.trunk == other.trunk) continue;
      const fs::path folder = in_layout(layout, false);
      change(folder, [&](Tensors& t) { t[other.trunk + "layers.1.input_layernorm.weight"] = zeros({16}); });
      EXPECT_THAT(fault(folder), HasSubstr(fmt::format("the tensors \"{}embed_tokens.weight\" and "
                                                       "\"{}layers.1.input_layernorm.weight\" have different",
                                                       layout.trunk, other.trunk)));
    }
}

TEST_F(TensorNamesOfFiles, AnotherPrefixIsToldWithThoseThatAreKnown) {
  const fs::path folder = write_model("base", false);
  rename(folder, [](const std::string& name) { return "_orig_mod." + name; });
  EXPECT_EQ(fault(folder),
            (folder / "model.safetensors").string() +
                ": the tensor \"_orig_mod.model.embed_tokens.weight\" has a prefix that is not known, expected "
                "\"model.embed_tokens.weight\"\n  known prefixes: \"model.\", none, \"language_model.model.\", "
                "\"model.language_model.\", \"language_model.\"");
}

TEST_F(TensorNamesOfFiles, ModelsWithVisionStayRefused) {
  const fs::path folder = in_layout({"model.language_model.", ""}, false);
  change(folder, [](Tensors& t) { t["model.visual.patch_embed.proj.weight"] = zeros({4, 4}); });
  EXPECT_THAT(fault(folder), HasSubstr("tensor \"model.visual.patch_embed.proj.weight\" [4, 4] has no place in the "
                                       "model of config.json\n"));
  configure(folder, {{"vision_config", Json::object().set("depth", int64_t{2})}});
  EXPECT_THAT(fault(folder), StartsWith((folder / "config.json").string() + ": \"vision_config\" is "));
}

}  // namespace
}  // namespace tessera
