// Stable-RPS as a model holds it: what is shared, first values, starts from given weights, notes.

#include "model/sharing/rps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "model/sharing/rps_models.h"
#include "model/sharing/selection.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

double deviation(std::span<const float> values) {
  double squares = 0;
  for (const float x : values) squares += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(squares / static_cast<double>(values.size()));
}

/// Tensors large enough for deviations to show to 2 %: four standard errors of 25,000 draws.
std::vector<WeightSpec> wide_specs() {
  return {matrix_spec("embedding", {500, 192}, test::normal(1), Role::embedding),
          matrix_spec("q", {192, 192}, test::normal(0.02)), matrix_spec("up", {256, 192}, test::uniform(0.09)),
          matrix_spec("gate", {256, 192}, test::normal(0.02)), matrix_spec("down", {192, 256}, test::normal(0.0065))};
}

TEST(RpsFirstValues, HaveTheDeviationsOfTheOrdinaryModel) {
  const test::OwnContext own;
  for (const char* scale : {"exact", "pow2", "auto"})
    for (const char* precond : {"D", "none"})
      for (const char* mapper : {"randomfold", "hashed"}) {
        SharingConfig config = rps(8);
        config.scale = scale;
        config.precond = precond;
        config.mapper = mapper;
        const BoundBase base(config, wide_specs());
        for (size_t k = 0; k < base.specs.size(); ++k) {
          const Tensor w = test::gathered(own.ctx, base.pool, *base.views[k]);
          const double ratio = deviation(w.as<float>()) / deviation_of(base.specs[k].init);
          const double bound = std::string(scale) == "pow2" ? std::sqrt(2.0) * 1.02 : 1.02;
          EXPECT_LT(ratio, bound) << base.specs[k].name << " " << scale << " " << precond << " " << mapper;
          EXPECT_GT(ratio, 1 / bound) << base.specs[k].name << " " << scale << " " << precond << " " << mapper;
        }
      }
}

std::vector<double> lambdas(const BoundBase& base) {
  std::vector<double> list;
  const Json descriptor = base.sharing->descriptor();
  for (const Json& tensor : descriptor.at("tensors").items()) list.push_back(tensor.at("lambda").as_number());
  return list;
}

TEST(RpsFirstValues, ScaleAutoIsPowersOfTwoOnlyWithoutCompression) {
  const std::vector<WeightSpec> specs{matrix_spec("a", {8, 9}, test::normal(0.3)),
                                      matrix_spec("b", {8, 9}, test::normal(0.02))};
  EXPECT_THAT(lambdas(BoundBase(rps(1, {"linears"}), specs)), ElementsAre(8, 0.5));
  EXPECT_THAT(lambdas(BoundBase(rps(1.02, {"linears"}), specs)), ElementsAre(0.3 / 0.04, 0.5));
  SharingConfig config = rps(1, {"linears"});
  config.scale = "exact";
  EXPECT_THAT(lambdas(BoundBase(config, specs)), ElementsAre(0.3 / 0.04, 0.5));
}

// Not a view of the pool that happens to start right: each weight is, to the bit, what docs/stable_rps.md makes of its
// cell.
TEST(RpsWeights, AreSignTimesScaleTimesCell) {
  const test::OwnContext own;
  for (const char* precond : {"D", "none"}) {
    SharingConfig config = rps(5.3);
    config.precond = precond;
    BoundBase base(config, wide_specs());
    const auto cells = base.pool.values(0).as<float>();
    const auto m = static_cast<int64_t>(cells.size());
    const test::PageFold page{123321, m};
    const std::vector<double> scales = lambdas(base);
    std::vector<double> d(cells.size());
    int64_t i = 0;
    for (size_t k = 0; k < scales.size(); ++k)
      for (int64_t e = 0; e < base.specs[k].shape.count(); ++e) d[page.cell(i++)] += scales[k] * scales[k];
    EXPECT_EQ(m, static_cast<int64_t>(static_cast<double>(i) / 5.3));
    i = 0;
    for (size_t k = 0; k < scales.size(); ++k) {
      const Tensor w = test::gathered(own.ctx, base.pool, *base.views[k]);
      for (int64_t e = 0; e < w.shape().count(); ++e, ++i) {
        const auto j = static_cast<size_t>(page.cell(i));
        const double factor = *precond == 'D' ? scales[k] / std::sqrt(d[j]) : scales[k];
        ASSERT_EQ(w.as<float>()[e], static_cast<float>(page.sign(i) * factor) * cells[j])
            << base.specs[k].name << " " << e;
      }
    }
  }
}

TEST(RpsWeights, AreReadRowByRowAsTheyAreReadWhole) {
  const test::OwnContext own;
  for (const char* layout : {"row", "tile"})
    for (const char* mapper : {"randomfold", "hashed", "roast-tile"}) {
      SharingConfig config = rps(3, {"linears"});
      config.layout = layout;
      config.mapper = mapper;
      config.tile_rows = config.tile_cols = 8;
      const BoundBase base(config,
                           {matrix_spec("a", {19, 21}, test::normal(1)), matrix_spec("b", {9, 30}, test::normal(1))});
      for (const ViewPtr& view : base.views) {
        const Tensor whole = test::gathered(own.ctx, base.pool, *view);
        for (int64_t row = 0; row < view->shape()[0]; ++row) {
          Tensor one({1, view->shape()[1]}, DType::f32);
          view->gather(own.ctx, {&base.pool}, {row, row + 1}, one);
          EXPECT_TRUE(test::same_bytes(one.view(), whole.view().slice_rows(row, row + 1))) << layout << " " << mapper;
        }
      }
    }
}

const std::vector<StepPiece>& pieces(const BoundBase& base) {
  return base.pool.trainable().slots.front().adaptive_steps;
}

TEST(RpsSteps, OfAdamWAreMultipliedByTheReadersScalesOverTheRootOfD) {
  // 12 cells, 30 weights: a: 20 of scale 2, b: 10 of scale 8.
  const std::vector<WeightSpec> specs{matrix_spec("a", {4, 5}, test::normal(0.08)),
                                      matrix_spec("b", {2, 5}, test::normal(0.32))};
  SharingConfig config = rps(2.5, {"linears"});
  const BoundBase base(config, specs);
  const test::PageFold page{123321, 12};
  std::vector<double> sum(12), squares(12);
  for (int64_t i = 0; i < 30; ++i) {
    const double lambda = i < 20 ? 0.08 / 0.04 : 0.32 / 0.04;
    sum[page.cell(i)] += lambda;
    squares[page.cell(i)] += lambda * lambda;
  }
  std::vector<float> expected, found;
  for (size_t j = 0; j < 12; ++j) expected.push_back(static_cast<float>(sum[j] / std::sqrt(squares[j])));
  for (const StepPiece& piece : pieces(base))
    while (static_cast<int64_t>(found.size()) < piece.end) found.push_back(piece.scale);
  EXPECT_EQ(found, expected);
  EXPECT_NE(*std::min_element(found.begin(), found.end()), *std::max_element(found.begin(), found.end()));
  config.kappa = "iso";
  EXPECT_TRUE(pieces(BoundBase(config, specs)).empty());
  config.kappa = "unit";
  config.precond = "none";
  EXPECT_TRUE(pieces(BoundBase(config, specs)).empty());
  const BoundBase whole(rps(1, {"linears"}), specs);
  for (const StepPiece& piece : pieces(whole)) EXPECT_EQ(piece.scale, 1.0f);
}

TEST_F(RpsModel, KeepsWhatIsNotSharedUnderItsOwnName) {
  Model model(settings(rps(4, {"linears"})));
  std::vector<std::string> expected{"lm_head.weight", "model.embed_tokens.weight"};
  for (int layer = 0; layer < 3; ++layer)
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"})
      expected.push_back(fmt::format("model.layers.{}.{}.weight", layer, norm));
  expected.insert(expected.end(), {"model.norm.weight", "rps.pool"});
  EXPECT_EQ(slots(model), expected);
  EXPECT_EQ(test::slot_of(model.pool(), "rps.pool").shape, (Shape{kLinears / 4}));
  EXPECT_EQ(tensors(model).size(), 21u);
  for (const TrainableSlot& slot : model.pool().trainable().slots)
    EXPECT_EQ(slot.weight_decay, slot.name.find("norm") == std::string::npos) << slot.name;
}

TEST_F(RpsModel, GivesATiedEmbeddingOneRangeAndAnUntiedHeadItsOwn) {
  Model tied(settings(rps(4, {"linears", "embedding"}), {.tied = true}));
  EXPECT_THAT(tensors(tied), Contains("model.embed_tokens.weight").Times(1));
  EXPECT_THAT(tensors(tied), Not(Contains("lm_head.weight")));
  EXPECT_EQ(test::slot_of(tied.pool(), "rps.pool").shape, (Shape{(kLinears + kEmbedding) / 4}));
  EXPECT_EQ(tied.decoder().weight(0)->fingerprint(),
            tied.decoder().weight(static_cast<int>(tied.decoder().specs().size()) - 1)->fingerprint());
  Model untied(settings(rps(4, {"linears", "embedding", "head"})));
  EXPECT_THAT(tensors(untied), Contains("lm_head.weight"));
  EXPECT_EQ(test::slot_of(untied.pool(), "rps.pool").shape, (Shape{(kLinears + 2 * kEmbedding) / 4}));
  EXPECT_NE(untied.decoder().weight(0)->fingerprint(),
            untied.decoder().weight(static_cast<int>(untied.decoder().specs().size()) - 1)->fingerprint());
  Model by_head(settings(rps(4, {"linears", "head"}), {.tied = true}));  // either name of the one tensor
  EXPECT_EQ(tensors(by_head), tensors(tied));
}

TEST_F(RpsModel, SharesWhatRegularExpressionsFindAndIsLargeEnough) {
  Model some(settings(rps(4, {"layers\\.[02]\\.mlp", "q_proj"})));
  EXPECT_EQ(tensors(some).size(), 2u * 3 + 3);
  SharingConfig config = rps(4);
  config.min_numel = 257;  // q and o have 256
  Model large(settings(config));
  EXPECT_EQ(tensors(large).size(), 3u * 3 + 1);
  EXPECT_THAT(slots(large), Contains("model.layers.1.self_attn.q_proj.weight"));
}

TEST_F(RpsModel, TakesTheNumberOfCellsInPlaceOfTheCompression) {
  SharingConfig config = rps(4);
  config.pool = 777;
  Model model(settings(config));
  EXPECT_EQ(test::slot_of(model.pool(), "rps.pool").shape, (Shape{777}));
}

TEST_F(RpsModel, DrawsTheSameWeightsAsTheDenseModelWithoutCompression) {
  for (const bool tied : {false, true})
    for (const auto& shared : {std::vector<std::string>{"linears"}, {"linears", "embedding"}, {"mlp", "head"}})
      for (const char* layout : {"row", "tile"}) {
        SharingConfig config = rps(1, shared);
        config.layout = layout;
        config.tile_rows = config.tile_cols = 8;
        Model model(settings(config, {.tied = tied})), dense(settings({}, {.tied = tied}));
        for (int i = 0; i < static_cast<int>(dense.decoder().specs().size()); ++i)
          EXPECT_TRUE(test::same_bytes(test::gathered(own_.ctx, model.pool(), *model.decoder().weight(i)).view(),
                                       test::gathered(own_.ctx, dense.pool(), *dense.decoder().weight(i)).view()))
              << dense.decoder().specs()[i].name << " " << layout;
        EXPECT_EQ(model.pool().trainable_count(), dense.pool().trainable_count());
      }
}

TEST_F(RpsModel, StartsFromTheNearestSharedWeights) {
  const fs::path folder = dense_folder({.layers = 1});
  Model dense(given(folder, {}));
  for (const char* precond : {"D", "none"})
    for (const char* mapper : {"randomfold", "hashed"}) {
      SharingConfig config = rps(4);
      config.precond = precond;
      config.mapper = mapper;
      Model model(given(folder, config));
      const TensorView cells = test::slot_of(model.pool(), "rps.pool");
      const auto squared_distance = [&] {
        double sum = 0;
        for (size_t i = 0; i < dense.decoder().specs().size(); ++i) {
          const int index = static_cast<int>(i);
          const Tensor ours = test::gathered(own_.ctx, model.pool(), *model.decoder().weight(index));
          const Tensor theirs = test::gathered(own_.ctx, dense.pool(), *dense.decoder().weight(index));
          for (int64_t e = 0; e < ours.shape().count(); ++e)
            sum += std::pow(static_cast<double>(ours.as<float>()[e]) - static_cast<double>(theirs.as<float>()[e]), 2);
        }
        return sum;
      };
      const double least = squared_distance();
      std::mt19937 random(1);
      for (int n = 0; n < 8; ++n) {
        float& cell = cells.as<float>()[random() % cells.as<float>().size()];
        const float before = cell;
        double moved[2];
        for (const int side : {0, 1}) {
          cell = before + (side ? -0.01f : 0.01f);
          moved[side] = squared_distance() - least;
        }
        cell = before;
        // At the least, the two sides of the parabola are alike; a cell that nobody reads (hashed) changes nothing.
        EXPECT_NEAR(moved[0], moved[1], 1e-3 * moved[0] + 1e-12) << precond << " " << mapper;
        EXPECT_TRUE(moved[0] > 1e-6 || std::string(mapper) == "hashed") << moved[0];
      }
    }
}

TEST_F(RpsModel, TellsHowFarGivenWeightsAreFromSharedOnes) {
  const fs::path folder = dense_folder({.hidden_size = 64, .intermediate_size = 96, .head_dim = 16});
  Model dense(given(folder, {})), model(given(folder, rps(4)));
  std::map<std::string, std::string> told;
  for (const std::string& line : model.notes()) {
    const std::string middle = ": relative error of the projection, by layer: ";
    if (const size_t at = line.find(middle); at != std::string::npos)
      told[line.substr(5, at - 5)] = line.substr(at + middle.size());
  }
  EXPECT_EQ(told.size(), 8u);
  const auto& specs = dense.decoder().specs();
  for (const auto& [type, errors] : told) {
    std::string expected;
    for (size_t i = 0; i < specs.size(); ++i) {
      if ((specs[i].type.empty() ? specs[i].name : specs[i].type) != type) continue;
      const Tensor ours = test::gathered(own_.ctx, model.pool(), *model.decoder().weight(static_cast<int>(i)));
      const ConstView theirs = dense.decoder().weight(static_cast<int>(i))->direct({&dense.pool()});
      double difference = 0, norm = 0;
      for (int64_t e = 0; e < theirs.shape.count(); ++e) {
        difference += std::pow(element(ours.view(), e) - element(theirs, e), 2);
        norm += std::pow(element(theirs, e), 2);
      }
      const double error = std::sqrt(difference / norm);
      EXPECT_NEAR(error, std::sqrt(1 - 1.0 / 4), 0.03) << specs[i].name;
      expected += fmt::format("{}{:.3f}", expected.empty() ? "" : " ", error);
    }
    EXPECT_EQ(errors, expected) << type;
  }
  for (const std::string& line : Model(given(folder, rps(1))).notes())
    EXPECT_THAT(line, Not(HasSubstr("relative error"))) << "exact at 1x";
  for (const std::string& line : Model(settings(rps(4))).notes()) EXPECT_THAT(line, Not(HasSubstr("relative error")));
}

TEST_F(RpsModel, SaysWhatItSharesAndWhatTheWholeComesTo) {
  Model model(settings(rps(4, {"linears"})));
  const auto notes = model.notes();
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_EQ(notes[0], "rps: 5,184 weights of 21 tensors in a pool of 1,296 cells (4x), 4 chunks; readers of a cell: 4");
  // 2 x 368 of embedding and head, 7 norms of 16
  EXPECT_EQ(notes[1], "rps: 848 weights of 9 tensors are not shared: 2,144 numbers in all, 2.813x fewer than weights");
  EXPECT_THAT(Model(settings(rps(4.1, {"linears"}))).notes()[0], HasSubstr("readers of a cell: 4 to 5"));
}

TEST_F(RpsModel, WarnsWhenThePoolIsShorterThanARow) {
  SharingConfig config = rps(4);
  config.pool = 19;
  EXPECT_THAT(Model(settings(config)).notes(),
              Contains("warning: rps: a pool of 19 cells is shorter than a row of 20: rows repeat themselves"));
  config.pool = 20;
  EXPECT_THAT(Model(settings(config)).notes(), Not(Contains(HasSubstr("warning"))));
}

TEST_F(RpsModel, NamesTheWeightsThatReadACell) {
  SharingConfig config = rps(4);
  config.pool = 2001;
  Model model(settings(config));
  const test::PageFold page{123321, 2001};
  std::vector<std::string> expected;
  int64_t i = 0;
  std::set<std::string> seen;
  for (const WeightSpec& spec : model.decoder().specs()) {
    if (spec.role != Role::linear && spec.role != Role::embedding) continue;
    for (int64_t e = 0; e < spec.shape.count(); ++e, ++i)
      if (page.cell(i) == 1234)
        expected.push_back(fmt::format("{}[{}, {}]", spec.name, e / spec.shape[1], e % spec.shape[1]));
  }
  ASSERT_EQ(expected.size(), 2u);
  EXPECT_EQ(model.readers("rps.pool", 1234),
            "cell 1234 of rps.pool, read by 2 weights: " + expected[0] + ", " + expected[1]);
  config.pool = 16;
  EXPECT_THAT(Model(settings(config)).readers("rps.pool", 3),
              testing::AllOf(HasSubstr("read by 347 weights: "), testing::EndsWith(", ...")));
  EXPECT_THAT(model.readers("model.norm.weight", 3), HasSubstr("model.norm.weight"));
}

TEST_F(RpsModel, StartsFromATensorOfZeros) {
  const fs::path folder = dense_folder();
  rewrite(folder, [](std::map<std::string, Tensor>& tensors) {
    tensors["model.layers.1.mlp.up_proj.weight"] = Tensor({20, 16}, DType::f32);
  });
  for (const std::string& line : Model(given(folder, rps(4))).notes()) EXPECT_THAT(line, Not(HasSubstr("nan")));
}

TEST_F(RpsModel, StartsFromGivenWeightsOfNarrowTypesAsTheDenseModelDoes) {
  for (const char* dtype : {"bfloat16", "float16"}) {
    const fs::path folder = dense_folder({.dtype = dtype}, dtype);
    Model dense(given(folder, {})), model(given(folder, rps(1)));
    for (int i = 0; i < static_cast<int>(dense.decoder().specs().size()); ++i)
      EXPECT_TRUE(test::same_bytes(test::gathered(own_.ctx, model.pool(), *model.decoder().weight(i)).view(),
                                   test::gathered(own_.ctx, dense.pool(), *dense.decoder().weight(i)).view()))
          << dense.decoder().specs()[i].name;
  }
}

TEST_F(RpsModel, WithOtherSeedsIsOtherWeightsAndAnotherFingerprint) {
  SharingConfig config = rps(4);
  Model a(settings(config)), again(settings(config));
  EXPECT_EQ(a.views_fingerprint(), again.views_fingerprint());
  config.seed = 5;
  Model b(settings(config));
  EXPECT_NE(a.views_fingerprint(), b.views_fingerprint());
  EXPECT_TRUE(test::same_bytes(test::slot_of(a.pool(), "rps.pool"), test::slot_of(b.pool(), "rps.pool")))
      << "cells are drawn from the run's seed";
  EXPECT_FALSE(
      test::same_bytes(test::logits_of(own_.ctx, a, {3, 1, 4}).view(), test::logits_of(own_.ctx, b, {3, 1, 4}).view()));
}

TEST_F(RpsModel, ComputesWhatItsDenseExportComputes) {
  for (const bool tied : {false, true})
    for (const char* layout : {"row", "tile"}) {
      SharingConfig config = rps(6, {"linears", "embedding", "head"});
      config.layout = layout;
      config.tile_rows = config.tile_cols = 8;
      Model model(settings(config, {.tied = tied}));
      export_merged(folder_ / "out", model, folder_.path(), own_.ctx);
      Model dense(given(folder_ / "out", {}));
      const std::vector<int32_t> ids{3, 14, 1, 5, 9, 2, 6};
      EXPECT_TRUE(
          test::same_bytes(test::logits_of(own_.ctx, model, ids).view(), test::logits_of(own_.ctx, dense, ids).view()))
          << layout << (tied ? " tied" : "");
    }
}

}  // namespace
}  // namespace tessera
