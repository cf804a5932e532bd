// What Stable-RPS cannot share, and how it is told.

#include <gmock/gmock.h>

#include <limits>

#include "core/error.h"
#include "model/sharing/rps_models.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

class RpsFaults : public RpsModel {};

TEST_F(RpsFaults, RefusesAPoolLargerThanTheWeights) {
  const Fault found = fault(settings(rps(0.001, {"linears"})));
  EXPECT_EQ(found.where, "recipe.toml:3:1");
  EXPECT_EQ(found.message, "rps: pool 5,184,000 is larger than the 5,184 shared weights: nothing to share (use 1x)");
  EXPECT_EQ(found.hint, "set sharing.compression to 1 or more, or sharing.pool to no more than the weights");
  EXPECT_EQ(fault(settings(rps(0.999, {"linears"}))).message,
            "rps: pool 5,189 is larger than the 5,184 shared weights: nothing to share (use 1x)");
  SharingConfig config = rps(10);
  config.pool = 1'000'000;
  EXPECT_EQ(fault(settings(config)).message,
            "rps: pool 1,000,000 is larger than the 5,552 shared weights: nothing to share (use 1x)");
}

TEST_F(RpsFaults, RefusesToLeaveNoCell) {
  const Fault found = fault(settings(rps(6000, {"linears"})));
  EXPECT_EQ(found.where, "recipe.toml:3:1");
  EXPECT_EQ(found.message, "rps: 5,184 shared weights at 6000x leave no cell");
  EXPECT_EQ(found.hint, "sharing.compression may be 1 .. 5,184");
  EXPECT_NO_THROW(Model(settings(rps(5184, {"linears"}))));  // one cell
}

TEST_F(RpsFaults, RefusesNamesThatMatchNothing) {
  const Fault found = fault(settings(rps(4, {"linears", "mpl"})));
  EXPECT_EQ(found.where, "recipe.toml:3:1");
  EXPECT_EQ(found.message, "rps: sharing.shared \"mpl\" names no matrix of this model");
  EXPECT_EQ(fault(settings(rps(4, {"layernorm"}))).message,
            "rps: sharing.shared \"layernorm\" names no matrix of this model")
      << "norms are vectors";
  EXPECT_THAT(fault(settings(rps(4, {"(mlp"}))).message, HasSubstr("\"(mlp\" is no regular expression: "));
}

TEST_F(RpsFaults, RefusesToShareNothing) {
  SharingConfig config = rps(4);
  config.min_numel = 100'000;
  const Fault found = fault(settings(config));
  EXPECT_EQ(found.message, "rps: no tensor is shared");
  EXPECT_EQ(found.hint, "lower sharing.min_numel (100000), or name more in sharing.shared");
  EXPECT_EQ(fault(settings(rps(4, {}))).message, "rps: no tensor is shared");
}

TEST_F(RpsFaults, RefusesTensorsWithoutAScale) {
  const auto message = [](const Init& init) -> std::string {
    try {
      const BoundBase base(rps(2, {"linears"}),
                           {matrix_spec("a", {8, 9}, test::normal(1)), matrix_spec("lora_B", {8, 9}, init)});
    } catch (const UserError& error) {
      return error.message();
    }
    return "nothing was thrown";
  };
  EXPECT_EQ(message({}), "rps: 'lora_B' is initialised to zeros; exclude it");
  EXPECT_EQ(message({Init::Kind::ones, 1, {}}), "rps: 'lora_B' is initialised to ones; exclude it");
}

TEST_F(RpsFaults, RefusesAHalfFrozenCell) {
  Model::Settings some = settings(rps(4));
  some.freeze = {"embed_tokens", "norm"};
  const Fault found = fault(some);
  EXPECT_EQ(found.where, "recipe.toml:3:1");
  EXPECT_EQ(found.message,
            "rps: 'model.embed_tokens.weight' is frozen and shares its cells: a shared cell cannot be half frozen");
  EXPECT_EQ(found.hint, "leave it out of sharing.shared, or out of train.freeze");
  some.sharing = rps(4, {"linears"});
  Model model(some);
  EXPECT_THAT(slots(model), ElementsAre("lm_head.weight", "rps.pool"));
}

TEST_F(RpsFaults, RefusesATileThatDoesNotFitThePool) {
  SharingConfig config = rps(4);
  config.mapper = "roast-tile";
  config.pool = 1024;
  EXPECT_EQ(fault(settings(config)).message, "rps: a tile of 32 x 32 does not fit a pool of 1024 cells");
}

TEST_F(RpsFaults, RefusesTiedTensorsThatAreStoredApartAndDiffer) {
  const fs::path folder = dense_folder({.tied = true});
  const auto add_head = [&](float difference) {
    rewrite(folder, [&](std::map<std::string, Tensor>& tensors) {
      const ConstView embedding = tensors.at("model.embed_tokens.weight").view();
      tensors["lm_head.weight"] = Tensor(embedding.shape, embedding.dtype);
      std::memcpy(tensors["lm_head.weight"].view().mutable_data(), embedding.data,
                  static_cast<size_t>(embedding.bytes()));
      tensors["lm_head.weight"].as<float>()[100] += difference;
    });
  };
  add_head(0);
  EXPECT_NO_THROW(Model(given(folder, rps(4))));
  add_head(1e-3f);
  const Fault found = fault(given(folder, rps(4)));
  EXPECT_EQ(found.where, (folder / "model.safetensors").string());
  EXPECT_EQ(
      found.message,
      "rps: \"model.embed_tokens.weight\" and \"lm_head.weight\" are tied by config.json, but their stored weights differ");
  EXPECT_EQ(found.hint, "set \"tie_word_embeddings\" to false, or take another copy of the model");
  EXPECT_EQ(
      fault(given(folder, rps(4, {"linears"}))).message,  // not shared, and lost all the same
      "\"model.embed_tokens.weight\" and \"lm_head.weight\" are tied by config.json, but their stored weights differ");
}

TEST_F(RpsFaults, RefusesAQuantisedBase) {
  const fs::path folder = dense_folder();
  rewrite(folder, [](std::map<std::string, Tensor>& tensors) {
    tensors["model.layers.1.self_attn.q_proj.weight"] = Tensor({16, 16}, DType::i8);
  });
  const Fault found = fault(given(folder, rps(4)));
  EXPECT_EQ(found.where, "recipe.toml:3:1");
  EXPECT_EQ(found.message, "rps: \"model.layers.1.self_attn.q_proj.weight\" is stored as i8");
  EXPECT_EQ(found.hint, "a quantised base cannot be shared: write it out in f32, bf16 or f16 first");
}

}  // namespace
}  // namespace tessera
