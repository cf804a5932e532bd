#include "model/sharing_io.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "io/files.h"
#include "model/export.h"
#include "support/rps.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using test::rps;
using testing::HasSubstr;
using testing::StartsWith;

class SharingFolder : public testing::Test {
 protected:
  /// @param load  from folder(), in place of drawing
  std::unique_ptr<Model> make(const SharingConfig& sharing, bool train = true, bool load = false, uint64_t seed = 11,
                              const test::TinyConfig& config = {}) {
    Model::Settings settings = test::tiny_settings(base_.path(), config);
    settings.sharing = sharing;
    if (load) settings.sharing.load = folder();
    settings.train_base = train;
    settings.seed = seed;
    settings.where_sharing = "recipe.toml:3:1";
    return std::make_unique<Model>(settings);
  }
  /// A model all of whose numbers differ from any draw, saved into folder().
  std::unique_ptr<Model> saved_model(const SharingConfig& sharing) {
    auto model = make(sharing);
    test::fill_all_normal(model->pool(), 5, 0.3);
    save_sharing(folder(), *model);
    return model;
  }
  fs::path folder() const { return saved_.path() / "shared"; }
  std::string file() const { return (folder() / "rps.safetensors").string(); }

  struct Fault {
    std::string where, message, hint;
  };
  Fault fault(const SharingConfig& sharing, bool train = true, const test::TinyConfig& config = {}) {
    try {
      make(sharing, train, true, 12, config);
    } catch (const UserError& error) {
      return {error.where(), error.message(), error.hint()};
    }
    return {"", "nothing was thrown", ""};
  }
  std::string saved_with(const std::string& what) const {
    return fmt::format("the sharing in \"{}\" was saved with {}", folder().string(), what);
  }
  Json description() const { return Json::parse(test::read_file(folder() / "sharing.json"), ""); }
  void replace_in_description(const std::string& from, const std::string& to) {
    std::string json = test::read_file(folder() / "sharing.json");
    const size_t at = json.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    test::write_file(folder() / "sharing.json", json.replace(at, from.size(), to));
  }
  /// As an earlier version saved numbers that are not finite, too.
  void write_numbers(Model& model) {
    std::vector<std::pair<std::string, ConstView>> tensors;
    for (const TrainableSlot& slot : model.pool().trainable().slots)
      tensors.emplace_back(slot.name, test::slot_of(model.pool(), slot.name));
    const std::string before = description().at("sha256").as_string();
    write_safetensors(file(), tensors);
    replace_in_description(before, sha256_of_file(file()));
  }

  test::TemporaryFolder base_, saved_;
  test::OwnContext own_;
};

TEST_F(SharingFolder, BringsEveryNumberBackBitForBitTrainableAndFrozen) {
  for (const char* mapper : {"randomfold", "hashed"})
    for (const double compression : {1.0, 4.0}) {
      SharingConfig config = rps(compression);
      config.mapper = mapper;
      const auto saved = saved_model(config);
      const auto trainable = make(config, true, true, 12), frozen = make(config, false, true, 12);
      EXPECT_TRUE(test::same_bytes(saved->pool().trainable().values, trainable->pool().trainable().values));
      EXPECT_EQ(trainable->pool().trainable_count(), saved->pool().trainable_count());
      EXPECT_EQ(frozen->pool().trainable_count(), 0);
      EXPECT_EQ(frozen->pool().owned_bytes(), 0) << "a frozen base is read where the file was mapped";
      for (int i = 0; i < static_cast<int>(saved->decoder().specs().size()); ++i) {
        const Tensor expected = test::gathered(own_.ctx, saved->pool(), *saved->decoder().weight(i));
        for (const auto& model : {trainable.get(), frozen.get()})
          EXPECT_TRUE(test::same_bytes(test::gathered(own_.ctx, model->pool(), *model->decoder().weight(i)).view(),
                                       expected.view()))
              << saved->decoder().specs()[i].name << " " << mapper << " " << compression;
      }
    }
}

TEST_F(SharingFolder, HoldsTheSlotsUnderTheirNamesAndTheDescription) {
  const auto model = saved_model(rps(4));
  const auto reader = SafetensorsReader::open(folder() / "rps.safetensors");
  EXPECT_EQ(reader.names().size(), 1u + 7 + 1);  // the pool, norms, the head
  EXPECT_EQ(reader.at("rps.pool").shape, (Shape{5552 / 4}));
  const Json json = description();
  EXPECT_EQ(json.at("format").as_string(), "tessera sharing");
  EXPECT_EQ(json.at("format_version").as_integer(), 1);
  EXPECT_EQ(json.at("parameters").as_integer(), model->pool().trainable_count());
  EXPECT_EQ(json.at("sharing").dump(), model->sharing().descriptor().dump());
  EXPECT_EQ(json.at("sha256").as_string(), sha256_of_file(folder() / "rps.safetensors"));
  const uintmax_t dense = 4u * static_cast<uintmax_t>(model->virtual_parameters());
  EXPECT_LT(fs::file_size(folder() / "rps.safetensors"), dense / 2) << "the file shrinks with the pool";
}

TEST_F(SharingFolder, IsTheSameBytesWhenSavedTwiceAndWhenSavedFromWhatWasLoaded) {
  const auto model = saved_model(rps(4));
  const std::string tensors = test::read_file(file()), json = test::read_file(folder() / "sharing.json");
  save_sharing(folder(), *model);
  EXPECT_EQ(test::read_file(file()), tensors);
  EXPECT_EQ(test::read_file(folder() / "sharing.json"), json);
  const auto loaded = make(rps(4), true, true, 12);
  save_sharing(folder(), *loaded);
  EXPECT_EQ(test::read_file(file()), tensors);
  EXPECT_EQ(test::read_file(folder() / "sharing.json"), json);
}

TEST_F(SharingFolder, MayBeTrainedOnWithOtherKappa) {
  saved_model(rps(4));
  SharingConfig config = rps(4);
  config.kappa = "iso";
  EXPECT_NO_THROW(make(config, true, true));
}

TEST_F(SharingFolder, IsRefusedWithBothValuesWhenTheRunDiffers) {
  saved_model(rps(4));
  SharingConfig other = rps(4);
  other.seed = 5;
  const Fault seed = fault(other);
  EXPECT_EQ(seed.where, "recipe.toml:3:1");
  EXPECT_EQ(seed.message, saved_with("seed 123321, this run has 5"));
  EXPECT_EQ(seed.hint, "set sharing.seed to the saved value, or leave sharing.load out");
  EXPECT_EQ(fault(rps(5)).message, saved_with("cells 1388, this run has 1110"));
  EXPECT_EQ(fault(rps(4, {"linears"})).message, saved_with("weights 5552, this run has 5184"));
  other = rps(4);
  other.precond = "none";
  EXPECT_EQ(fault(other).message, saved_with("precond \"D\", this run has \"none\""));
  other = rps(4);
  other.layout = "tile";
  EXPECT_EQ(fault(other).message, saved_with("layout \"row\", this run has \"tile\""));
  other = rps(4);
  other.mapper = "hashed";
  EXPECT_EQ(fault(other).message, saved_with("mapper \"randomfold\", this run has \"hashed\""));
}

TEST_F(SharingFolder, OfOtherTilesIsRefused) {
  SharingConfig config = rps(4);
  config.layout = "tile";
  saved_model(config);
  config.tile_rows = 16;
  EXPECT_EQ(fault(config).message, saved_with("tile_rows 32, this run has 16"));
  config.tile_rows = 32;
  config.tile_cols = 8;
  EXPECT_EQ(fault(config).message, saved_with("tile_cols 32, this run has 8"));
}

TEST_F(SharingFolder, OfAnotherScaleOrOrderOfTensorsIsRefusedWithTheFirstThatDiffers) {
  saved_model(rps(4));
  SharingConfig other = rps(4);
  other.sigma_0 = 0.08;
  const Fault found = fault(other);
  EXPECT_EQ(found.message,
            saved_with("tensors {\"name\":\"model.embed_tokens.weight\",\"begin\":0,\"lambda\":7.5}, "
                       "this run has {\"name\":\"model.embed_tokens.weight\",\"begin\":0,\"lambda\":3.75}"));
  EXPECT_EQ(found.hint,
            "the tensors lie elsewhere in its pool: compare model.path, sharing.shared, min_numel, scale and sigma_0");
  // As many weights, in other shapes.
  EXPECT_THAT(fault(rps(4), true, {.intermediate_size = 20, .heads = 4, .kv_heads = 1, .head_dim = 4}).message,
              HasSubstr("was saved with "));
}

TEST_F(SharingFolder, WithOneAlteredOffsetIsRefused) {
  saved_model(rps(4));
  replace_in_description("\"begin\": 368", "\"begin\": 369");
  EXPECT_EQ(
      fault(rps(4)).message,
      saved_with(
          "tensors {\"name\":\"model.layers.0.self_attn.q_proj.weight\",\"begin\":369,\"lambda\":7.5}, this run has "
          "{\"name\":\"model.layers.0.self_attn.q_proj.weight\",\"begin\":368,\"lambda\":7.5}"));
}

TEST_F(SharingFolder, WhoseRotationsCannotBeDrawnAgainIsRefused) {
  const auto model = saved_model(rps(4));
  const std::string ours = model->sharing().descriptor().at("fnv1a").as_string();
  replace_in_description(ours, "0123456789abcdef");
  EXPECT_EQ(fault(rps(4)).message, saved_with(fmt::format("fnv1a \"0123456789abcdef\", this run has \"{}\"", ours)));
}

TEST_F(SharingFolder, OfAnotherMethodIsRefused) {
  saved_model(rps(4));
  replace_in_description("\"method\": \"rps\"", "\"method\": \"other\"");
  const Fault found = fault(rps(4));
  EXPECT_EQ(found.where, "recipe.toml:3:1");
  EXPECT_EQ(found.message, saved_with("method \"other\", this run has \"rps\""));
  EXPECT_EQ(found.hint, "set sharing.method to the saved value, or leave sharing.load out");
}

TEST_F(SharingFolder, ThatIsNotThereIsNamed) {
  EXPECT_EQ(fault(rps(4)).message, fmt::format("the sharing's folder \"{}\" does not exist", folder().string()));
  test::write_file(folder(), "");
  EXPECT_EQ(fault(rps(4)).message, fmt::format("the sharing's folder \"{}\" is a file", folder().string()));
  fs::remove(folder());
  fs::create_directories(folder());
  const Fault found = fault(rps(4));
  EXPECT_EQ(found.message, fmt::format("\"{}\" holds no sharing.json", folder().string()));
  EXPECT_EQ(found.hint, "name the folder that a run saved its shared weights to");
  saved_model(rps(4));
  fs::remove(file());
  EXPECT_THAT(fault(rps(4)).where, StartsWith(file()));
}

TEST_F(SharingFolder, OfALaterFormatIsRefused) {
  saved_model(rps(4));
  replace_in_description("\"format_version\": 1", "\"format_version\": 2");
  EXPECT_EQ(fault(rps(4)).message, "format_version is 2, this program reads 1");
  test::write_file(folder() / "sharing.json", "{}");
  EXPECT_EQ(fault(rps(4)).message, "this is no description of a sharing: \"format\" is not \"tessera sharing\"");
}

TEST_F(SharingFolder, CutShortAnywhereIsNamed) {
  saved_model(rps(4));
  const std::string whole = test::read_file(file());
  for (size_t length = 0; length < whole.size(); length += 257) {
    test::write_file(file(), whole.substr(0, length));
    for (const bool train : {true, false}) EXPECT_EQ(fault(rps(4), train).where, file()) << length;
  }
}

TEST_F(SharingFolder, WithOneAlteredBitIsRefused) {
  saved_model(rps(4));
  std::string bytes = test::read_file(file());
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  test::write_file(file(), bytes);
  const Fault found = fault(rps(4));
  EXPECT_EQ(found.where, file());
  EXPECT_EQ(found.message, fmt::format("its SHA-256 is {}, sharing.json says {}", sha256_of_file(file()),
                                       description().at("sha256").as_string()));
  EXPECT_EQ(found.hint, "the file was altered, or the save was cut short: take another copy");
}

TEST_F(SharingFolder, WithABrokenCellNamesTheTensorsAndPositionsThatReadIt) {
  const auto model = saved_model(rps(4));
  std::string readers;
  const test::PageFold page{123321, 1388};
  int64_t i = 0, count = 0;
  for (const WeightSpec& spec : model->decoder().specs()) {
    if (spec.role != Role::linear && spec.role != Role::embedding) continue;
    for (int64_t e = 0; e < spec.shape.count(); ++e, ++i)
      if (page.cell(i) == 700 && ++count)
        readers += fmt::format("{}{}[{}, {}]", count > 1 ? ", " : "", spec.name, e / spec.shape[1], e % spec.shape[1]);
  }
  ASSERT_EQ(count, 4);
  for (const float broken : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    test::slot_of(model->pool(), "rps.pool").as<float>()[700] = broken;
    EXPECT_THROW(save_sharing(folder(), *model), UserError);
    write_numbers(*model);
    for (const bool train : {true, false}) {
      const Fault found = fault(rps(4), train);
      EXPECT_EQ(found.where, file());
      EXPECT_EQ(found.message, fmt::format("holds {}: cell 700 of rps.pool, read by 4 weights: {}", broken, readers));
      EXPECT_EQ(
          found.hint,
          "the run that wrote it had diverged: job=export run.resume=RUN/checkpoints/step-N.h5 writes the one of an earlier checkpoint");
    }
  }
  test::fill_all_normal(model->pool(), 5, 0.3);
  test::slot_of(model->pool(), "model.layers.1.input_layernorm.weight").as<float>()[3] =
      std::numeric_limits<float>::infinity();
  write_numbers(*model);
  EXPECT_EQ(fault(rps(4)).message, "holds inf: element 3 of \"model.layers.1.input_layernorm.weight\"");
}

TEST_F(SharingFolder, WithAPoolOfAnotherTypeIsRefusedWhetherItIsTrainedOrNot) {
  const auto model = saved_model(rps(4));
  const ConstView pool = test::slot_of(model->pool(), "rps.pool");
  Tensor half(pool.shape, DType::bf16);
  for (int64_t j = 0; j < pool.shape.count(); ++j)
    half.as<BFloat16>()[static_cast<size_t>(j)] = to_bfloat16(static_cast<float>(element(pool, j)));
  std::vector<std::pair<std::string, ConstView>> tensors = {{"rps.pool", half.view()}};
  for (const TrainableSlot& slot : model->pool().trainable().slots)
    if (slot.name != "rps.pool") tensors.emplace_back(slot.name, test::slot_of(model->pool(), slot.name));
  const std::string before = description().at("sha256").as_string();
  write_safetensors(file(), tensors);
  replace_in_description(before, sha256_of_file(file()));
  for (const bool train : {true, false}) {
    const Fault found = fault(rps(4), train);
    EXPECT_EQ(found.where, file());
    EXPECT_EQ(found.message, "tensor \"rps.pool\" is stored as bf16, expected f32");
  }
}

// --- A frozen base below an adapter ---

class FrozenBase : public SharingFolder {
 protected:
  Model::Settings adapted(const fs::path& dense) {
    Model::Settings settings = test::tiny_settings(base_.path());
    settings.adapter.method = "mos";
    settings.adapter.equivalent_rank = 2;
    settings.adapter.rank = 4;
    settings.adapter.shards = 2;
    if (dense.empty()) {
      settings.sharing = rps(4);
      settings.sharing.load = folder();
    } else {
      settings.model.path = dense;
      settings.model.init = "pretrained";
    }
    return settings;
  }
};

TEST_F(FrozenBase, ChangesItsFingerprintWithACellAndWithAnUnsharedWeightOnly) {
  const auto model = saved_model(rps(4));
  const auto fingerprint = [&] {
    save_sharing(folder(), *model);
    Model loaded(adapted({}));
    return loaded.base_fingerprint();
  };
  const std::string own = fingerprint();
  EXPECT_EQ(fingerprint(), own);
  float& cell = test::slot_of(model->pool(), "rps.pool").as<float>()[700];
  cell = std::nextafter(cell, 1.0f);
  const std::string moved = fingerprint();
  EXPECT_NE(moved, own);
  float& norm = test::slot_of(model->pool(), "model.norm.weight").as<float>()[3];
  norm = std::nextafter(norm, 1.0f);
  EXPECT_NE(fingerprint(), moved);
}

TEST_F(FrozenBase, ComputesWithAnAdapterWhatItsDenseExportComputes) {
  const auto base = saved_model(rps(4));
  export_merged(base_ / "dense", *base, base_.path(), own_.ctx);
  Model shared(adapted({})), dense(adapted(base_ / "dense"));
  EXPECT_EQ(shared.pool().trainable_count(), dense.pool().trainable_count()) << "only the adapter is trained";
  for (Model* model : {&shared, &dense}) {
    test::fill_all_normal(model->pool(), 5, 0.2);
    model->assemble(own_.ctx);
  }
  const std::vector<int32_t> ids{3, 14, 1, 5, 9, 2, 6, 5};
  EXPECT_TRUE(
      test::same_bytes(test::logits_of(own_.ctx, shared, ids).view(), test::logits_of(own_.ctx, dense, ids).view()));
}

}  // namespace
}  // namespace tessera
