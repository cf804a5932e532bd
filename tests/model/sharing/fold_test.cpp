// Folded models of a dense one: which tensors their layers read, what is stored, what is trained.

#include "model/sharing/fold.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "model/fold/plan_shapes.h"
#include "support/folds.h"

namespace tessera {
namespace {

using test::OwnContext;
using testing::Each;
using testing::ElementsAre;
using testing::StartsWith;

const std::vector<int32_t> kText = {3, 14, 1, 5, 9, 2, 6, 5};

class Folded : public testing::Test {
 protected:
  Folded() : dense_(test::dense_folder(folder_.path(), {.layers = 6})) {}

  std::unique_ptr<Model> fold(FoldMaking making, bool train = false) {
    Model::Settings settings = test::stored_settings(dense_);
    settings.train_base = train;
    test::fold_by(std::move(making), settings);
    return std::make_unique<Model>(settings);
  }
  std::unique_ptr<Model> fold(const FoldPlan& plan) { return fold({.plan = plan, .state = {}}); }
  Tensor logits(Model& model) {
    model.assemble(own_.ctx);
    return test::logits_of(own_.ctx, model, kText);
  }
  Tensor dense_logits(const std::filesystem::path& folder) {
    Model model(test::stored_settings(folder));
    return logits(model);
  }
  static const void* place_of(Model& model, int weight) {
    return model.decoder().weight(weight)->direct({&model.pool()}).data;
  }
  static std::vector<std::string> slots(Model& model, bool trained) {
    std::vector<std::string> names;
    for (SlotId slot = 0; slot < model.pool().count(); ++slot)
      if (model.pool().is_trainable(slot) == trained) names.push_back(model.pool().name(slot));
    return names;
  }
  /// The distance of two sets of logits over the size of the second.
  static double distance(const Tensor& a, const Tensor& b) {
    double square = 0, size = 0;
    for (int64_t i = 0; i < a.shape().count(); ++i) {
      square += std::pow(element(a.view(), i) - element(b.view(), i), 2);
      size += std::pow(element(b.view(), i), 2);
    }
    return std::sqrt(square / size);
  }

  test::TemporaryFolder folder_;
  OwnContext own_;
  std::filesystem::path dense_;
};

TEST_F(Folded, ByThePlanThatKeepsAllIsTheOriginalToTheBitAndCopiesNothing) {
  const auto same = fold(identity_plan({.fingerprint = {}, .layers = 6, .model_type = "llama"}));
  EXPECT_TRUE(test::same_bytes(logits(*same), dense_logits(dense_)));
  EXPECT_EQ(same->pool().owned_bytes(), 0);
}

TEST_F(Folded, ComputesWhatItsDenseTwinComputesToTheBit) {
  const FoldPlan plans[] = {
      test::six_layers(),
      test::fold_plan(
          {6, {2, 4}, {test::group_of({0}), test::group_of({1}), test::group_of({3}), test::group_of({5})}}),
      test::fold_plan({6, {}, {test::group_of({0, 1}, 1), test::group_of({2, 3}), test::group_of({4, 5}, 5)}}),
      test::fold_plan({6, {0, 5}, {test::group_of({1, 2, 3, 4}, 4)}})};
  int number = 0;
  for (const FoldPlan& plan : plans) {
    const auto model = fold(plan);
    const auto twin = test::unfolded_twin(dense_, plan, folder_ / fmt::format("twin-{}", number++));
    EXPECT_EQ(model->decoder().num_layers(), plan.virtual_layers());
    EXPECT_TRUE(test::same_bytes(logits(*model), dense_logits(twin)));
    EXPECT_FALSE(test::same_bytes(logits(*model), dense_logits(dense_)));
  }
}

TEST_F(Folded, SaysOfEachLayerItsNumberAndItsOriginalIndex) {
  const auto model = fold(test::six_layers());
  EXPECT_EQ(model->config().num_hidden_layers, 5);
  EXPECT_EQ(model->base_config().num_hidden_layers, 6);
  std::vector<int> originals;
  for (const BaseLayer& layer : model->layers()) originals.push_back(layer.original);
  EXPECT_THAT(originals, ElementsAre(0, 2, 3, 4, 5));
  EXPECT_EQ(model->decoder().specs()[static_cast<size_t>(model->decoder().block_weights(1).gate)].name,
            "model.layers.1.mlp.gate_proj.weight");
  EXPECT_EQ(model->readers("fold.group.1.mlp.up_proj.weight", 7),
            "weight fold.group.1.mlp.up_proj.weight element 7, read by the original's blocks 2, 3, 4");
  EXPECT_EQ(model->readers("fold.layer.1.input_layernorm.weight", 7),
            "weight fold.layer.1.input_layernorm.weight element 7");
}

TEST_F(Folded, TakesANormFromItsOwnLayerAndWhenTiedFromTheParent) {
  const auto reader = SafetensorsReader::open_folder(dense_);
  const auto norm_of = [&](const char* block) {
    return reader.at(fmt::format("model.layers.{}.input_layernorm.weight", block));
  };
  const auto own = fold(test::six_layers()), tied = fold(test::six_layers({ChildLevel::tie, 0}));
  const int norm = own->decoder().block_weights(1).input_norm;  // of block 2, whose group reads block 3
  EXPECT_TRUE(test::same_bytes(own->decoder().weight(norm)->direct({&own->pool()}), norm_of("2")));
  EXPECT_TRUE(test::same_bytes(tied->decoder().weight(norm)->direct({&tied->pool()}), norm_of("3")));
  EXPECT_LT(tied->pool().frozen_count(), own->pool().frozen_count());
}

TEST_F(Folded, StoresEachGroupOnceAndNothingOfIt) {
  for (const ChildLevel level :
       {ChildLevel::tie, ChildLevel::norm, ChildLevel::scale, ChildLevel::lora, ChildLevel::mos}) {
    const FoldPlan plan = test::six_layers({level, level >= ChildLevel::lora ? 2 : 0});
    const auto frozen = fold(plan), trained = fold({.plan = plan, .state = {}}, true);
    const int64_t stored = stored_parameters(plan, shapes_of(weight_specs(frozen->base_config())));
    EXPECT_EQ(frozen->pool().frozen_count(), stored) << name_of(level);
    EXPECT_EQ(trained->pool().trainable_count(), stored) << name_of(level);
    EXPECT_THAT(slots(*trained, true), Each(testing::Not(StartsWith("model.layers."))));
  }
}

TEST_F(Folded, ANudgedParentWeightIsSeenByItsGroupAndNoOtherLayer) {
  const auto model = fold({.plan = test::six_layers(), .state = {}}, true);
  const auto gate_of = [&](int layer) { return place_of(*model, model->decoder().block_weights(layer).gate); };
  EXPECT_EQ(gate_of(1), gate_of(2));
  EXPECT_EQ(gate_of(2), gate_of(3));
  EXPECT_NE(gate_of(0), gate_of(1));
  EXPECT_NE(gate_of(4), gate_of(3));
  std::vector<Tensor> before;
  const auto gathered = [&](int layer) {
    const WeightView& view = *model->decoder().weight(model->decoder().block_weights(layer).gate);
    Tensor w(view.shape(), DType::f32);
    view.gather(own_.ctx, {&model->pool()}, w);
    return w;
  };
  for (int layer = 0; layer < 5; ++layer) before.push_back(gathered(layer));
  test::slot_of(model->pool(), "fold.group.1.mlp.gate_proj.weight").as<float>()[11] += 1;
  for (int layer = 0; layer < 5; ++layer)
    EXPECT_EQ(test::same_bytes(gathered(layer), before[static_cast<size_t>(layer)]), layer == 0 || layer == 4) << layer;
}

/// SPSA moves cells of the pool: a weight that three layers read moves once.
TEST_F(Folded, APerturbedParentIsTheSameForAllItsReaders) {
  const auto model = fold({.plan = test::six_layers(), .state = {}}, true);
  const Direction z{.seed = 3, .round = 2};
  const PoolRead read{&model->pool(), &z, 0.125f};
  const auto gathered = [&](int layer, const PoolRead& from) {
    const WeightView& view = *model->decoder().weight(model->decoder().block_weights(layer).down);
    Tensor w(view.shape(), DType::f32);
    view.gather(own_.ctx, from, w);
    return w;
  };
  EXPECT_TRUE(test::same_bytes(gathered(1, read), gathered(3, read)));
  EXPECT_FALSE(test::same_bytes(gathered(1, read), gathered(1, {&model->pool()})));
}

// --- What children have of their own ---

TEST_F(Folded, StartsFromTheGainsThatItIsGiven) {
  FoldMaking making{.plan = test::six_layers({ChildLevel::scale, 0}), .state = {}};
  const auto plain = fold(making);
  for (const int layer : {1, 3})
    making.starts[fmt::format("fold.layer.{}.mlp.down_proj.gain", layer)] = [](TensorView gain) {
      for (int64_t i = 0; i < gain.shape.count(); ++i) set_element(gain, i, 0.5);
    };
  const auto scaled = fold(making);
  const int child = scaled->decoder().block_weights(1).down, parent = scaled->decoder().block_weights(2).down;
  EXPECT_EQ(scaled->decoder().gain(parent), nullptr);
  Tensor gain(scaled->decoder().gain(child)->shape(), DType::f32);
  scaled->decoder().gain(child)->gather(own_.ctx, {&scaled->pool()}, gain);
  EXPECT_THAT(gain.as<float>(), Each(0.5f));
  EXPECT_GT(distance(logits(*scaled), logits(*plain)), 1e-3);
  EXPECT_LT(distance(logits(*plain), logits(*fold(test::six_layers()))), 1e-6) << "gains begin at 1";
}

/// What a delta of full rank adds makes up for all that sharing took.
TEST_F(Folded, WithDeltasOfFullRankIsTheOriginalOfThatDepth) {
  const FoldPlan plan = test::six_layers({ChildLevel::lora, 1024});
  const auto reader = SafetensorsReader::open_folder(dense_);
  FoldMaking making{.plan = plan, .state = {}};
  for (const auto& [layer, block] : {std::pair{1, 2}, std::pair{3, 4}})
    for (const WeightSpec& spec : weight_specs(read_model_config(dense_ / "config.json"))) {
      if (spec.layer != block || spec.role != Role::linear) continue;
      const ConstView child = reader.at(spec.name),
                      parent = reader.at(fmt::format("model.layers.3.{}.weight", spec.type));
      const int64_t out = spec.shape[0], in = spec.shape[1];
      const auto difference = [=](int64_t o, int64_t i) {
        return element(child, o * in + i) - element(parent, o * in + i);
      };
      const std::string base = fmt::format("fold.layer.{}.{}", layer, spec.type);
      // E = I E where there are fewer outputs, E I where there are fewer inputs.
      making.starts[base + ".lora_a"] = [=](TensorView a) {
        for (int64_t k = 0; k < a.shape[0]; ++k)
          for (int64_t i = 0; i < in; ++i) set_element(a, k * in + i, out <= in ? difference(k, i) : k == i);
      };
      making.starts[base + ".lora_bt"] = [=](TensorView bt) {
        for (int64_t k = 0; k < bt.shape[0]; ++k)
          for (int64_t o = 0; o < out; ++o) set_element(bt, k * out + o, out <= in ? k == o : difference(o, k));
      };
    }
  const FoldPlan removed = test::fold_plan(
      {6,
       {1},
       {test::group_of({0}), test::group_of({2}), test::group_of({3}), test::group_of({4}), test::group_of({5})}});
  const Tensor original = logits(*fold(removed));
  EXPECT_LT(distance(logits(*fold(making)), original), 1e-4);
  EXPECT_GT(distance(logits(*fold(test::six_layers())), original), 1e-2);
}

TEST_F(Folded, OfMeansReadsWhatIsWrittenInStoredType) {
  FoldPlan plan = test::six_layers();
  plan.groups[1] = {.blocks = {2, 3, 4}, .parent = {}, .values = GroupValues::mean};
  FoldMaking making{.plan = plan, .state = {}};
  const auto reader = SafetensorsReader::open_folder(dense_);
  for (const WeightSpec& spec : weight_specs(read_model_config(dense_ / "config.json"))) {
    if (spec.layer != 2 || spec.role != Role::linear) continue;
    making.starts[fmt::format("fold.group.1.{}.weight", spec.type)] = [&reader, type = spec.type](TensorView mean) {
      for (int64_t i = 0; i < mean.shape.count(); ++i) {
        double sum = 0;
        for (const int block : {2, 3, 4})
          sum += element(reader.at(fmt::format("model.layers.{}.{}.weight", block, type)), i);
        set_element(mean, i, sum / 3);
      }
    };
  }
  const auto model = fold(making);
  const ConstView mean = model->decoder().weight(model->decoder().block_weights(2).o)->direct({&model->pool()});
  EXPECT_EQ(mean.dtype, DType::f32);
  const auto of = [&](int block) {
    return element(reader.at(fmt::format("model.layers.{}.self_attn.o_proj.weight", block)), 5);
  };
  EXPECT_FLOAT_EQ(static_cast<float>(element(mean, 5)), static_cast<float>((of(2) + of(3) + of(4)) / 3));
  EXPECT_THROW(fold(plan), InternalError) << "nobody says what the mean is";
}

// --- What is trained ---

TEST_F(Folded, TrainsItsOwnNumbersEverythingOrTheReplacedBlock) {
  FoldPlan plan = test::six_layers({ChildLevel::scale, 0});
  plan.groups[2].values = GroupValues::trained;
  AdapterConfig lora;
  lora.method = "lora";
  lora.rank = 2;
  const auto own = fold({.plan = plan, .state = {}, .training = FoldTraining::own, .cure = lora}, true);
  EXPECT_THAT(slots(*own, true),
              Each(testing::AnyOf(StartsWith("fold.layer."), StartsWith("fold.cure.lora.model.layers."))));
  EXPECT_THAT(slots(*own, false),
              Each(testing::AnyOf(StartsWith("fold.group."), StartsWith("model."), StartsWith("lm_head"))));
  EXPECT_GT(own->pool().frozen_mapped_bytes(), 0) << "the groups stay in the base's file";
  EXPECT_TRUE(slots(*fold({.plan = plan, .state = {}}, true), false).empty());
  const auto replaced = fold({.plan = plan, .state = {}, .training = FoldTraining::replaced}, true);
  EXPECT_THAT(slots(*replaced, true), Each(testing::AnyOf(StartsWith("fold.group.2."), StartsWith("fold.layer.4."))));
  EXPECT_EQ(slots(*replaced, true).size(), 9U);
  EXPECT_TRUE(slots(*fold({.plan = plan, .state = {}, .cure = lora}), true).empty());
}

TEST_F(Folded, RefusesToFreezeAPartOfAGroup) {
  Model::Settings settings = test::stored_settings(dense_);
  settings.train_base = true;
  settings.freeze = {"layers.1.mlp.up_proj"};
  test::fold_by({.plan = test::six_layers(), .state = {}}, settings);
  try {
    Model model(settings);
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_EQ(error.message(),
              "fold: of 'model.layers.1.mlp.up_proj.weight' and 'model.layers.2.mlp.up_proj.weight', which are one, "
              "train.freeze names one");
  }
}

// --- Teacher and student ---

TEST_F(Folded, AndItsTeacherReadOneMappedFile) {
  Model teacher(test::stored_settings(dense_));
  Model::Settings settings = test::stored_settings(dense_);
  settings.source = teacher.source();
  settings.train_base = true;
  test::fold_by({.plan = test::six_layers(), .state = {}, .training = FoldTraining::own}, settings);
  Model student(settings);
  for (const auto& [number, block] : {std::pair{0, 0}, std::pair{1, 3}, std::pair{2, 3}, std::pair{4, 5}})
    EXPECT_EQ(place_of(student, student.decoder().block_weights(number).gate),
              place_of(teacher, teacher.decoder().block_weights(block).gate));
  EXPECT_EQ(place_of(student, 0), place_of(teacher, 0)) << "the embedding";
  EXPECT_EQ(student.pool().owned_bytes(), 2 * student.pool().trainable().values.bytes()) << "values and gradients";
  EXPECT_EQ(student.pool().trainable_count(), 5 * 2 * 16) << "norms";
  for (const auto& file : teacher.source()->files()) EXPECT_TRUE(file->is_mapped());
}

// --- Adapters above ---

TEST_F(Folded, AnAdapterIsAddedToItsOwnDeltas) {
  FoldMaking making{.plan = test::six_layers({ChildLevel::lora, 2}), .state = {}};
  Model::Settings settings = test::stored_settings(dense_);
  settings.adapter.method = "mos";
  settings.adapter.rank = 4;
  settings.adapter.shards = 2;
  test::fold_by(making, settings);
  Model model(settings);
  EXPECT_THAT(slots(model, true), Each(StartsWith("mos.")));
  const int child = model.decoder().block_weights(1).q, parent = model.decoder().block_weights(2).q;
  EXPECT_EQ(model.bound_adapter()->deltas(child).size(), 2U);
  EXPECT_EQ(model.bound_adapter()->deltas(parent).size(), 1U);
  EXPECT_EQ(model.virtual_parameters() - fold(test::six_layers())->virtual_parameters(), [&] {
    int64_t count = 0;
    for (const auto& deltas : model.bound_adapter()->weights().by_weight)
      for (const LowRank& delta : deltas)
        if (delta.a->is_trainable()) count += delta.a->shape().count() + delta.bt->shape().count();
    return count;
  }()) << "what is trained above the model";
}

/// Rows of several adapters, or of none, in one batch.
TEST_F(Folded, RowsWithoutAnAdapterHaveTheBasesOwnDeltas) {
  FoldMaking making{.plan = test::six_layers({ChildLevel::lora, 2}), .state = {}};
  for (const int layer : {1, 3})
    making.starts[fmt::format("fold.layer.{}.mlp.down_proj.lora_bt", layer)] = [](TensorView bt) {
      test::fill_normal(bt, 7, 0.3);
    };
  const auto alone = fold(making);
  Model::Settings settings = test::stored_settings(dense_);
  settings.adapter.method = "lora";
  test::fold_by(making, settings);
  Model model(settings);
  test::fill_all_normal(model.pool(), 5, 0.2);
  const Tensor adapted = logits(model), own = logits(*alone);
  EXPECT_GT(distance(adapted, own), 1e-2);
  BoundAdapter base(model.deltas_with({}), model.pool());
  base.assemble(own_.ctx);
  const std::vector<int32_t> positions = {0, 1, 2, 3, 4, 5, 6, 7};
  const AttentionSegment segment{0, 8, 0, 8};
  const RowGroup group{0, 8, &base};
  const TokenBatch batch{kText, positions, {}, {&segment, 1}, {&group, 1}};
  PackedAttention attention;
  const Pass pass{own_.ctx, batch, {&model.pool()}};
  Tensor result(own.shape(), DType::f32);
  model.decoder().logits(pass, model.decoder().forward(pass, attention), positions, result);
  EXPECT_TRUE(test::same_bytes(result, own));
}

// --- Faults ---

TEST_F(Folded, NamesWhatIsMissing) {
  const auto fault = [](const Model::Settings& settings) -> std::string {
    try {
      Model model(settings);
    } catch (const UserError& error) {
      return error.where() + ": " + error.message();
    }
    return "nothing was thrown";
  };
  Model::Settings settings = test::stored_settings(dense_);
  settings.sharing.method = "fold";
  EXPECT_EQ(fault(settings),
            "recipe.toml:3:1: fold: name a folded model by sharing.load, or make one with job = \"compress\"");
  test::fold_by({.plan = test::any_fold_plan(7), .state = {}}, settings);
  EXPECT_THAT(fault(settings), testing::AllOf(testing::HasSubstr("7"), testing::HasSubstr("6")));
}

}  // namespace
}  // namespace tessera
