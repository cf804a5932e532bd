// Magnitude pruning at the start: which weights are kept, the view as a linear map, saving. Its gradients: tests/train.

#include "model/sharing/magnitude.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

using test::OwnContext;

const char* const kPool = "magnitude.pool";

SharingConfig magnitude(double compression, std::vector<std::string> shared = {"linears"}) {
  SharingConfig config;
  config.method = "magnitude";
  config.compression = compression;
  config.min_numel = 1;
  config.shared = std::move(shared);
  return config;
}

class Magnitude : public testing::Test {
 protected:
  Model::Settings settings(const SharingConfig& sharing, bool tied = false) {
    Model::Settings s = test::tiny_settings(folder_.path(), {.tied = tied});
    s.sharing = sharing;
    s.train_base = true;
    return s;
  }
  std::unique_ptr<Model> load(const SharingConfig& sharing, bool tied = false) {
    return std::make_unique<Model>(settings(sharing, tied));
  }
  std::string fault(const Model::Settings& s) {
    try {
      Model model(s);
    } catch (const UserError& error) {
      return error.message();
    }
    return "nothing was thrown";
  }
  Tensor weight(Model& model, int index) {
    const WeightView& view = *model.decoder().weight(index);
    Tensor w(view.shape(), DType::f32);
    view.gather(own_.ctx, {&model.pool()}, w);
    return w;
  }
  /// The plain model's weights of a role, tensor by tensor, which are the shared ones.
  std::vector<float> linears(Model& model) {
    std::vector<float> all;
    for (size_t i = 0; i < model.decoder().specs().size(); ++i) {
      if (model.decoder().specs()[i].role != Role::linear) continue;
      const Tensor w = weight(model, static_cast<int>(i));
      all.insert(all.end(), w.as<float>().begin(), w.as<float>().end());
    }
    return all;
  }
  test::TemporaryFolder folder_;
  OwnContext own_;
};

TEST_F(Magnitude, KeepsTheLargestOfTheDenseModelsFirstValuesAndNothingElse) {
  const std::vector<float> dense = linears(*load({}));
  for (const double compression : {1.7, 10.0, 100.0, static_cast<double>(dense.size())}) {
    const std::vector<float> pruned = linears(*load(magnitude(compression)));
    ASSERT_EQ(pruned.size(), dense.size());
    const auto kept = static_cast<size_t>(static_cast<double>(dense.size()) / compression);
    std::vector<float> sorted = dense;
    std::sort(sorted.begin(), sorted.end(), [](float a, float b) { return std::abs(a) > std::abs(b); });
    size_t count = 0;
    for (size_t i = 0; i < dense.size(); ++i) {
      const bool large = std::abs(dense[i]) >= std::abs(sorted[kept - 1]);
      ASSERT_EQ(pruned[i], large ? dense[i] : 0.0f);
      count += large;
    }
    EXPECT_EQ(count, kept);
  }
}

TEST_F(Magnitude, OfEqualsKeepsTheFirst) {
  std::vector<WeightSpec> specs;
  for (const char* name : {"a", "b"})
    specs.push_back({.name = name,
                     .type = name,
                     .layer = 0,
                     .role = Role::linear,
                     .shape = {3, 25},
                     .init = {Init::Kind::normal, 1, {}},
                     .storage = name});
  // Every value 2, but for two that are larger and stand behind: written as a source would.
  std::vector<float> values(75, -2.0f), larger(75, 2.0f);
  larger[40] = 3;
  larger[74] = -5;
  specs[0].init.source = ConstView(values.data(), Shape{3, 25}, DType::f32);
  specs[1].init.source = ConstView(larger.data(), Shape{3, 25}, DType::f32);
  ParameterPool pool;
  SharingConfig config = magnitude(1);
  config.pool = 70;
  const auto sharing = make_sharing(config, "");
  const auto weights = sharing->bind(specs, pool, {.trainable = true});
  pool.allocate(0);
  Tensor a({3, 25}, DType::f32), b({3, 25}, DType::f32);
  weights[0].base->gather(own_.ctx, {&pool}, a);
  weights[1].base->gather(own_.ctx, {&pool}, b);
  for (size_t i = 0; i < 75; ++i) {
    EXPECT_EQ(a.as<float>()[i], i < 68 ? -2 : 0) << i;
    EXPECT_EQ(b.as<float>()[i], i == 40 ? 3 : i == 74 ? -5 : 0) << i;
  }
}

TEST_F(Magnitude, IsALinearMapAndItsAdjointExactly) {
  for (const double compression : {1.0, 1.3, 10.0, 64.0})
    for (const char* backend : {"reference", "cpu"}) {
      OwnContext own(backend);
      const auto model = load(magnitude(compression, {"linears", "embedding"}));
      ParameterPool& pool = model->pool();
      double through = 0, across = 0;
      pool.zero_grads();
      for (const TrainableSlot& slot : pool.trainable().slots) test::fill_integers(test::slot_of(pool, slot.name), 1);
      for (size_t i = 0; i < model->decoder().specs().size(); ++i) {
        const WeightView& view = *model->decoder().weight(static_cast<int>(i));
        Tensor w(view.shape(), DType::f32), v(view.shape(), DType::f32);
        test::fill_integers(v, static_cast<uint32_t>(i) + 2);
        view.gather(own.ctx, {&pool}, w);
        for (int pass = 0; pass < 2; ++pass) view.scatter_add(own.ctx, v.view(), pool);  // adds, does not assign
        for (int64_t e = 0; e < w.shape().count(); ++e) through += 2 * element(w.view(), e) * element(v.view(), e);
      }
      const ConstView p = pool.trainable().values, g = pool.trainable().grads;
      for (int64_t e = 0; e < p.shape.count(); ++e) across += element(p, e) * element(g, e);
      EXPECT_EQ(through, across) << compression << " " << backend;
      EXPECT_NE(through, 0);
    }
}

TEST_F(Magnitude, ReadsSomeRowsAsItReadsAll) {
  const auto model = load(magnitude(3));
  const int index = model->decoder().block_weights(1).up;
  const Tensor all = weight(*model, index);
  for (int64_t row = 0; row < all.shape()[0]; ++row) {
    Tensor one({1, all.shape()[1]}, DType::f32);
    model->decoder().weight(index)->gather(own_.ctx, {&model->pool()}, {row, row + 1}, one);
    EXPECT_TRUE(test::same_bytes(one.view(), all.view().slice_rows(row, row + 1)));
  }
}

TEST_F(Magnitude, UncompressedIsTheOrdinaryModelReadInPlace) {
  for (const bool tied : {false, true}) {
    const auto plain = load({}, tied), same = load(magnitude(1, {"linears", "embedding"}), tied);
    for (size_t i = 0; i < plain->decoder().specs().size(); ++i) {
      const ConstView w = same->decoder().weight(static_cast<int>(i))->direct({&same->pool()});
      ASSERT_FALSE(w.empty());
      EXPECT_TRUE(test::same_bytes(w, plain->decoder().weight(static_cast<int>(i))->direct({&plain->pool()})));
    }
    EXPECT_EQ(plain->pool().trainable_count(), same->pool().trainable_count());
    EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, *plain, {3, 14, 1, 5}),
                                 test::logits_of(own_.ctx, *same, {3, 14, 1, 5})));
  }
}

TEST_F(Magnitude, CountsTheKeptAndWhatIsNotShared) {
  const auto plain = load({}), pruned = load(magnitude(10));
  const auto weights = static_cast<int64_t>(linears(*plain).size());
  EXPECT_EQ(pruned->pool().trainable_count(), plain->pool().trainable_count() - weights + weights / 10);
  EXPECT_EQ(test::slot_of(pruned->pool(), kPool).shape.count(), weights / 10);
  EXPECT_EQ(pruned->virtual_parameters(), plain->virtual_parameters());
  EXPECT_EQ(pruned->notes().front(),
            fmt::format("magnitude: the {} largest of {} weights of 21 tensors are kept ({:.4g}x), the others are 0",
                        weights / 10, weights, static_cast<double>(weights) / static_cast<double>(weights / 10)));
}

TEST_F(Magnitude, TellsWhichWeightReadsACell) {
  const auto model = load(magnitude(10));
  TensorView pool = test::slot_of(model->pool(), kPool);
  for (float& x : pool.as<float>()) x = 1;
  pool.as<float>()[17] = 1000;
  const std::string text = model->readers(kPool, 17);
  bool found = false;
  for (size_t i = 0; i < model->decoder().specs().size(); ++i) {
    const Tensor w = weight(*model, static_cast<int>(i));
    for (int64_t e = 0; e < w.shape().count(); ++e) {
      if (element(w.view(), e) != 1000) continue;
      found = true;
      EXPECT_EQ(text, fmt::format("cell 17 of magnitude.pool, read by {}[{}, {}]", model->decoder().specs()[i].name,
                                  e / w.shape()[1], e % w.shape()[1]));
    }
  }
  EXPECT_TRUE(found) << text;
}

TEST_F(Magnitude, IsReadBackWithTheMaskOfTheSeedItWasDrawnWith) {
  const auto model = load(magnitude(10));
  test::fill_all_normal(model->pool(), 7, 0.3);
  save_sharing(folder_ / "saved", *model);
  Model::Settings s = settings(magnitude(10));
  s.sharing.load = folder_ / "saved";
  s.seed += 5;
  Model read(s);
  EXPECT_EQ(read.views_fingerprint(), model->views_fingerprint());
  EXPECT_EQ(linears(read), linears(*model));
  s.sharing.compression = 9;
  EXPECT_THAT(fault(s), testing::HasSubstr("cells"));
}

TEST_F(Magnitude, StartsFromStoredWeightsAndDoesNotPretendThatTheirMaskWasSaved) {
  const auto plain = load({});
  test::fill_all_normal(plain->pool(), 3, 0.2);
  std::filesystem::create_directory(folder_ / "dense");
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const TrainableSlot& slot : plain->pool().trainable().slots)
    tensors.emplace_back(slot.name, test::slot_of(plain->pool(), slot.name));
  write_safetensors(folder_ / "dense" / "model.safetensors", tensors);
  std::filesystem::copy_file(folder_ / "config.json", folder_ / "dense" / "config.json");
  Model::Settings s = settings(magnitude(2));
  s.model.path = folder_ / "dense";
  s.model.init = "pretrained";
  Model pruned(s);
  const std::vector<float> dense = linears(*plain), kept = linears(pruned);
  float largest_dropped = 0, least_kept = 1e9f;
  for (size_t i = 0; i < dense.size(); ++i) {
    const float size = std::abs(dense[i]);
    if (kept[i] == 0) {
      largest_dropped = std::max(largest_dropped, size);
    } else {
      ASSERT_EQ(kept[i], dense[i]);
      least_kept = std::min(least_kept, size);
    }
  }
  EXPECT_LT(largest_dropped, least_kept);
  save_sharing(folder_ / "saved", pruned);
  s.sharing.load = folder_ / "saved";
  EXPECT_EQ(fault(s), "magnitude: the mask of a model that was not drawn is not saved");
}

TEST_F(Magnitude, NamesItselfInErrorsThatItSharesWithOthers) {
  EXPECT_EQ(fault(settings(magnitude(2, {"nothing"}))),
            "magnitude: sharing.shared \"nothing\" names no matrix of this model");
  Model::Settings frozen = settings(magnitude(2));
  frozen.freeze = {"layers.1.mlp"};
  EXPECT_THAT(fault(frozen), testing::StartsWith("magnitude: 'model.layers.1.mlp.gate_proj.weight' is frozen"));
}

}  // namespace
}  // namespace tessera
