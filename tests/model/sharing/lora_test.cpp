#include "model/sharing/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

AdapterConfig lora(std::optional<int64_t> rank, std::vector<std::string> targets = {"all"}) {
  AdapterConfig config;
  config.method = "lora";
  config.rank = rank;
  config.targets = std::move(targets);
  return config;
}

class LoraModel : public testing::Test {
 protected:
  std::unique_ptr<Model> load(const AdapterConfig& adapter) {
    Model::Settings settings = test::tiny_settings(folder_.path());
    settings.adapter = adapter;
    auto model = std::make_unique<Model>(settings);
    model->assemble(own_.ctx);
    return model;
  }
  test::TemporaryFolder folder_;
  test::OwnContext own_;
};

TEST_F(LoraModel, GivesEveryTargetMatricesOfItsOwn) {
  const auto model = load(lora(3, {"q_proj", "mlp.down_proj"}));
  const auto& specs = model->decoder().specs();
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto deltas = model->bound_adapter()->deltas(static_cast<int>(i));
    const bool adapted = specs[i].type == "self_attn.q_proj" || specs[i].type == "mlp.down_proj";
    ASSERT_EQ(deltas.size(), adapted ? 1u : 0u) << specs[i].name;
    if (!adapted) continue;
    EXPECT_EQ(deltas.front().a.shape, (Shape{3, specs[i].shape[1]}));
    EXPECT_EQ(deltas.front().bt.shape, (Shape{3, specs[i].shape[0]}));
  }
  EXPECT_EQ(model->pool().trainable_count(), 3 * 3 * ((16 + 16) + (20 + 16)));
  EXPECT_EQ(model->bound_adapter()->assembled_bytes(), 0);  // read where they lie
}

TEST_F(LoraModel, IsOfRankEightUnlessTold) { EXPECT_EQ(load(lora({}))->bound_adapter()->rank(2), 8); }

TEST_F(LoraModel, AtTheStartComputesTheBaseModelBitForBit) {
  const auto base = load({}), adapted = load(lora(4));
  const std::vector<int32_t> text = {3, 14, 1, 5, 9, 2, 6};
  EXPECT_TRUE(test::same_bytes(test::logits_of(own_.ctx, *base, text), test::logits_of(own_.ctx, *adapted, text)));
  for (const TrainableSlot& slot : adapted->pool().trainable().slots) {
    const auto values = test::slot_of(adapted->pool(), slot.name).as<float>();
    const bool is_a = slot.name.substr(slot.name.rfind('.')) == ".a";
    float largest = 0;
    for (const float x : values) largest = std::max(largest, std::abs(x));
    if (is_a) {
      EXPECT_TRUE(largest > 0 && largest <= 1 / std::sqrt(static_cast<float>(slot.shape[1]))) << slot.name;
    } else {
      EXPECT_EQ(largest, 0) << slot.name;
    }
  }
}

TEST_F(LoraModel, DescribesTheTypesItAdaptsHoweverTheyWereNamed) {
  const auto by_leaf = load(lora(2, {"v_proj", "q_proj"})),
             by_path = load(lora(2, {"self_attn.q_proj", "self_attn.v_proj"}));
  EXPECT_EQ(by_leaf->adapter()->descriptor().dump(), by_path->adapter()->descriptor().dump());
  EXPECT_EQ(by_leaf->adapter()->descriptor().at("types").dump(), R"(["self_attn.q_proj","self_attn.v_proj"])");
}

TEST_F(LoraModel, RefusesATargetThatIsNotThere) {
  try {
    load(lora(2, {"lm_head"}));
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_THAT(error.message(), testing::StartsWith("lora: target 'lm_head' matches none of: mlp.down_proj, "));
  }
}

}  // namespace
}  // namespace tessera
