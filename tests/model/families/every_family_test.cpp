// What is asked of every family of models, whichever are registered: names, order, files.
// Gradients and generation of each: tests/train/every_family_test.cpp, tests/infer/every_family_test.cpp.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "model/config_fingerprint.h"
#include "model/export.h"
#include "support/families.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

class EveryFamily : public testing::TestWithParam<std::string> {
 protected:
  Model::Settings settings(const fs::path& folder, bool tied = false) const {
    return test::family_settings(GetParam(), folder, {.tied = tied});
  }
  static const std::vector<WeightSpec>& specs(Model& model) { return model.decoder().specs(); }
  test::TemporaryFolder folder_;
  test::OwnContext own_;
};
INSTANTIATE_TEST_SUITE_P(Registered, EveryFamily, testing::ValuesIn(test::family_names()), test::name_of_family);

TEST_P(EveryFamily, NamesEachWeightOnceInTheOrderOfTheLayers) {
  Model model(settings(folder_.path()));
  std::set<std::string> names;
  int layer = -1;
  bool behind_layers = false;
  for (const WeightSpec& spec : specs(model)) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    EXPECT_GT(spec.shape.count(), 0) << spec.name;
    if (spec.layer < 0) {
      behind_layers = layer >= 0;
      continue;
    }
    EXPECT_FALSE(behind_layers) << spec.name << " comes behind the layers";
    EXPECT_TRUE(spec.layer == layer || spec.layer == layer + 1) << spec.name;
    layer = spec.layer;
    EXPECT_THAT(spec.name, testing::HasSubstr(fmt::format(".{}.{}.", spec.layer, spec.type)));
  }
  EXPECT_EQ(layer + 1, model.config().num_hidden_layers);
  EXPECT_NO_THROW(decoder_parts(specs(model)));
}

TEST_P(EveryFamily, HasLayersThatAreAlikeButForTheirNumber) {
  Model model(settings(folder_.path()));
  std::vector<std::vector<std::string>> layers(static_cast<size_t>(model.config().num_hidden_layers));
  for (const WeightSpec& spec : specs(model))
    if (spec.layer >= 0)
      layers[static_cast<size_t>(spec.layer)].push_back(fmt::format(
          "{} {} {} of {}", spec.type, static_cast<int>(spec.part), static_cast<int>(spec.role), spec.shape.count()));
  for (const auto& layer : layers) EXPECT_EQ(layer, layers[0]);
}

TEST_P(EveryFamily, TiesTheHeadToTheEmbeddingWhenTheConfigSaysSo) {
  Model untied(settings(folder_ / "untied")), tied(settings(folder_ / "tied", true));
  const auto own_storage = [&](Model& model) {
    std::set<std::string> storage;
    for (const WeightSpec& spec : specs(model)) storage.insert(spec.storage);
    return storage.size();
  };
  EXPECT_EQ(own_storage(untied), specs(untied).size());
  EXPECT_EQ(own_storage(tied), specs(tied).size() - 1);
  EXPECT_EQ(untied.pool().trainable_count() - tied.pool().trainable_count(),
            untied.config().vocab_size * untied.config().hidden_size);
}

TEST_P(EveryFamily, IsTheSameModelWhenItWasWrittenAndRead) {
  for (const bool tied : {false, true}) {
    const fs::path drawn_in = folder_ / fmt::format("drawn-{}", tied),
                   written_to = folder_ / fmt::format("to-{}", tied);
    Model drawn(settings(drawn_in, tied));
    test::draw_norms_and_biases(drawn, 3);
    EXPECT_TRUE(export_merged(written_to, drawn, drawn_in, own_.ctx));
    Model::Settings reading;
    reading.model.path = written_to;
    reading.max_position = 64;
    Model read(reading);
    EXPECT_EQ(read.config().family, GetParam());
    EXPECT_EQ(config_fingerprint(read.config()), config_fingerprint(drawn.config()));
    const std::vector<int32_t> text = {3, 14, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7};
    EXPECT_TRUE(
        test::same_bytes(test::logits_of(own_.ctx, read, text).view(), test::logits_of(own_.ctx, drawn, text).view()));
  }
}

TEST_P(EveryFamily, ReadsEveryWeight) {
  Model model(settings(folder_.path()));
  test::draw_norms_and_biases(model, 3);
  const std::vector<int32_t> text = {3, 14, 1, 5, 9, 2, 6};
  const Tensor before = test::logits_of(own_.ctx, model, text);
  for (const WeightSpec& spec : specs(model)) {
    const TensorView whole = test::slot_of(model.pool(), spec.name);
    // A row of a matrix; of the embedding that of a token which occurs.
    const auto row = spec.shape.rank == 1
                         ? whole.as<float>()
                         : whole.as<float>().subspan(spec.part == Part::embedding ? 3 * whole.cols() : 0,
                                                     static_cast<size_t>(whole.cols()));
    const std::vector<float> kept(row.begin(), row.end());
    for (size_t i = 0; i < row.size(); ++i) row[i] += 0.25f * static_cast<float>(1 + i % 3);
    EXPECT_FALSE(test::same_bytes(test::logits_of(own_.ctx, model, text).view(), before.view()))
        << spec.name << " does nothing";
    std::copy(kept.begin(), kept.end(), row.begin());
  }
  EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, model, text).view(), before.view()));
}

TEST_P(EveryFamily, CountsWhatAModelHolds) {
  Model::Settings counting = settings(folder_.path());
  counting.memory = Memory::counted;
  Model counted(counting), held(settings(folder_.path()));
  EXPECT_EQ(counted.pool().owned_bytes(), held.pool().owned_bytes());
  EXPECT_EQ(counted.pool().trainable_count(), held.pool().trainable_count());
  EXPECT_EQ(counted.table_bytes(), held.table_bytes());
  EXPECT_EQ(counted.virtual_parameters(), held.virtual_parameters());
  EXPECT_EQ(plan_merged_bytes(counted), plan_merged_bytes(held));
}

TEST(Families, HaveNamesOfTheirOwn) {
  const auto names = test::family_names();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
  for (const ModelFamily& family : model_families()) EXPECT_FALSE(family.help.empty()) << family.name;
}

}  // namespace
}  // namespace tessera
