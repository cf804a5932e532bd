// With p = e = r nothing is shared and MoS is LoRA, to the bit; and what the first step of training sees.

#include <gtest/gtest.h>

#include "core/error.h"
#include "model/sharing/mos.h"
#include "support/adamw.h"
#include "support/golden.h"
#include "support/tiny_model.h"
#include "train/backprop.h"

namespace tessera {
namespace {

constexpr int64_t kRank = 2, kLayers = 3;

AdapterConfig config_of(const std::string& method, int64_t shards) {
  AdapterConfig config;
  config.method = method;
  config.rank = kRank;
  config.equivalent_rank = kRank;
  config.private_rank = kRank;
  config.shards = shards;
  return config;
}

PackedBatch batch_of_step(int step) {
  PackedBatch batch;
  batch.rows = 2;
  batch.sequence_length = 12;
  for (int64_t b = 0; b < 2; ++b) {
    batch.documents.push_back({b * 12, b * 12 + 12});
    for (int t = 0; t < 12; ++t) {
      batch.ids.push_back(static_cast<int32_t>((step + 5 * b + 3 * t) % 23));
      batch.labels.push_back(t == 11 ? -1 : static_cast<int32_t>((step + 5 * b + 3 * (t + 1)) % 23));
      batch.positions.push_back(t);
      batch.draw_index.push_back(b * 12 + t);
    }
  }
  return batch;
}

class MosIsLora : public testing::TestWithParam<std::tuple<int64_t, std::string>> {
 protected:
  std::unique_ptr<Model> load(const std::string& method, int64_t shards) {
    Model::Settings settings = test::tiny_settings(folder_.path(), {.layers = kLayers});
    settings.adapter = config_of(method, shards);
    return std::make_unique<Model>(settings);
  }
  /// Layer k's A and Bt lie one behind the other in a pool of private rows.
  static TensorView of_layer(Model& mos, const std::string& type, const char* side, int64_t layer, const Shape& shape) {
    const TensorView pool = test::slot_of(mos.pool(), "mos." + type + ".pool_" + side);
    return pool.reshape({kLayers * shape[0], shape[1]}).slice_rows(layer * shape[0], (layer + 1) * shape[0]);
  }
  template <class Visit> static void for_each_pair(Model& lora, Model& mos, Visit visit) {
    for (const WeightSpec& spec : lora.decoder().specs()) {
      if (spec.role != Role::linear) continue;
      const std::string base = "lora." + spec.name.substr(0, spec.name.rfind(".weight"));
      for (const auto& [suffix, side] : {std::pair{".a", "a"}, std::pair{".bt", "b"}}) {
        const TensorView mine = test::slot_of(lora.pool(), base + suffix);
        visit(mine, of_layer(mos, spec.type, side, spec.layer, mine.shape), base + suffix);
      }
    }
  }
  test::TemporaryFolder folder_;
};

TEST_P(MosIsLora, ForTwentyStepsToTheBit) {
  const auto& [shards, backend] = GetParam();
  test::OwnContext own(backend);
  const auto lora = load("lora", shards), mos = load("mos", shards);
  EXPECT_EQ(lora->pool().trainable_count(), mos->pool().trainable_count());
  for_each_pair(*lora, *mos, [](TensorView l, TensorView m, const std::string&) {
    std::memcpy(m.mutable_data(), l.data, static_cast<size_t>(l.bytes()));
  });
  test::AdamW lora_steps, mos_steps;
  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    const PackedBatch batch = batch_of_step(step);
    const auto losses = [&](Model& model, test::AdamW& optimizer) {
      model.assemble(own.ctx);
      const LossSums sums =
          backprop_batch(own.ctx, model, batch, {.dropout = {.on = true, .step = static_cast<uint64_t>(step)}});
      model.bound_adapter()->finish_backward(own.ctx);
      optimizer.step(own.ctx, model.pool(), static_cast<int64_t>(sums["scored"]));
      return sums["nll"] / sums["scored"];
    };
    last = losses(*lora, lora_steps);
    ASSERT_EQ(last, losses(*mos, mos_steps)) << "step " << step;
    if (step == 0) first = last;
  }
  EXPECT_LT(last, 0.9 * first);  // something was learned
  for_each_pair(*lora, *mos, [](const ConstView& l, const ConstView& m, const std::string& name) {
    EXPECT_TRUE(test::same_bytes(l, m)) << name;
  });
}

INSTANTIATE_TEST_SUITE_P(Shards, MosIsLora,
                         testing::Combine(testing::Values(1, 4), testing::Values("reference", "cpu")),
                         [](const auto& info) {
                           return fmt::format("{}_{}", std::get<0>(info.param), std::get<1>(info.param));
                         });

TEST(MosTraining, FirstGradientReachesBOnly) {
  test::TemporaryFolder folder;
  test::OwnContext own;
  Model::Settings settings = test::tiny_settings(folder.path());
  settings.adapter.method = "mos";
  Model model(settings);
  model.assemble(own.ctx);
  backprop_batch(own.ctx, model, batch_of_step(0));
  model.bound_adapter()->finish_backward(own.ctx);
  for (const TrainableSlot& slot : model.pool().trainable().slots) {
    float largest = 0;
    for (const float g : test::slot_of(model.pool(), slot.name, true).as<float>())
      largest = std::max(largest, std::abs(g));
    EXPECT_EQ(largest > 0, slot.name.substr(slot.name.size() - 6) == "pool_b") << slot.name;
  }
}

TEST(MosTraining, PoolGradientsAreThoseOfTheSameLoraScattered) {
  test::TemporaryFolder folder;
  test::OwnContext own;
  Model::Settings settings = test::tiny_settings(folder.path());
  settings.adapter.rank = 4;
  settings.adapter.shards = 2;
  settings.adapter.method = "mos";
  Model mos(settings);
  settings.adapter.method = "lora";
  Model lora(settings);
  test::fill_all_normal(mos.pool(), 3, 0.3);
  mos.assemble(own.ctx);

  Tensor expected(mos.pool().trainable().grads.shape,
                  DType::f32);  // dense gradients into the rows of the tables, in weight order
  const auto scatter = [&](const std::string& pool_name, const WeightView& view, const ConstView& dense) {
    const auto& table = dynamic_cast<const ShardView&>(view).table();
    const TensorView grads = test::slot_of(mos.pool(), pool_name, true);
    float* pool =
        expected.as<float>().data() + (grads.as<float>().data() - mos.pool().trainable().grads.as<float>().data());
    const int64_t width = grads.cols();
    for (int64_t i = 0; i < dense.shape.count(); ++i)
      pool[table[i / width] * width + i % width] += dense.as<float>()[i];
  };
  const auto& specs = lora.decoder().specs();
  for (size_t i = 0; i < specs.size(); ++i)
    for (const auto& to : lora.bound_adapter()->deltas(static_cast<int>(i))) {
      const auto& from = mos.bound_adapter()->deltas(static_cast<int>(i)).front();
      std::memcpy(const_cast<void*>(to.a.data), from.a.data, static_cast<size_t>(to.a.bytes()));
      std::memcpy(const_cast<void*>(to.bt.data), from.bt.data, static_cast<size_t>(to.bt.bytes()));
    }
  for (Model* model : {&mos, &lora}) {
    backprop_batch(own.ctx, *model, batch_of_step(0));
    model->bound_adapter()->finish_backward(own.ctx);
  }
  for (size_t i = 0; i < specs.size(); ++i)
    for (const auto& dense : lora.bound_adapter()->deltas(static_cast<int>(i))) {
      const LowRank& delta = mos.bound_adapter()->weights().by_weight[i].front();
      scatter("mos." + specs[i].type + ".pool_a", *delta.a, dense.da);
      scatter("mos." + specs[i].type + ".pool_b", *delta.bt, dense.dbt);
    }
  const auto ours = mos.pool().trainable().grads.as<float>(), theirs = expected.as<float>();
  for (size_t i = 0; i < ours.size(); ++i) ASSERT_EQ(ours[i], theirs[i]) << i;

  mos.pool().zero_grads();
  mos.bound_adapter()->finish_backward(own.ctx);  // what was collected has been handed over
  for (const float g : ours) ASSERT_EQ(g, 0.0f);
}

}  // namespace
}  // namespace tessera
