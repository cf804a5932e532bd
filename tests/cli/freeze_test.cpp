// train.freeze: named tensors of a full training stay as they are, to the bit, through training, resuming and SPSA.

#include <gtest/gtest.h>

#include "io/safetensors.h"
#include "support/workbench.h"

namespace tessera {
namespace {

class Freeze : public test::Workbench {
 protected:
  std::vector<std::byte> tensor(const std::string& run, const std::string& name) const {
    const auto reader = SafetensorsReader::open(*this / run / "model/model.safetensors");
    const ConstView view = reader.at(name);
    const auto* bytes = static_cast<const std::byte*>(view.data);
    return {bytes, bytes + view.bytes()};
  }
  static constexpr const char* kFreeze = R"(train.freeze=["embed_tokens","layers.0."])";
};

TEST_F(Freeze, LeavesTheNamedTensorsAndTrainsTheRest) {
  expect_done(trainer({"full.toml", "run.dir=still", "optimizer.lr=0", "train.steps=2"}));
  expect_done(trainer({"full.toml", "run.dir=frozen", "train.steps=6", kFreeze}));
  for (const char* name :
       {"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"})
    EXPECT_EQ(tensor("frozen", name), tensor("still", name)) << name;
  for (const char* name : {"model.layers.1.mlp.up_proj.weight", "model.norm.weight"})
    EXPECT_NE(tensor("frozen", name), tensor("still", name)) << name;
}

TEST_F(Freeze, HoldsUnderSpsaToo) {
  const Words spsa = {"full.toml", "train.estimator=spsa", "optimizer.name=sgd", "train.steps=4", "train.clip=0"};
  const auto with = [&](const Words& more) { return joined(spsa, more); };
  expect_done(trainer(with({"run.dir=still", "optimizer.lr=0"})));
  expect_done(trainer(with({"run.dir=frozen", "optimizer.lr=1e-3", kFreeze})));
  EXPECT_EQ(tensor("frozen", "model.embed_tokens.weight"), tensor("still", "model.embed_tokens.weight"));
  EXPECT_NE(tensor("frozen", "model.layers.1.mlp.up_proj.weight"),
            tensor("still", "model.layers.1.mlp.up_proj.weight"));
}

TEST_F(Freeze, RefusesWhatIsNoRegularExpressionAndCellsThatWouldBeHalfFrozen) {
  const auto bad = expect_exit(2, trainer({"full.toml", R"(train.freeze=["mlp["])"}));
  EXPECT_NE(bad.err.find("\"mlp[\" is no regular expression"), std::string::npos) << bad.err;
  const auto half = expect_exit(2, trainer({"rps.toml", R"(train.freeze=["layers.0.mlp.up_proj"])"}));
  EXPECT_NE(
      half.err.find("rps: 'model.layers.0.mlp.up_proj.weight' is frozen and shares its cells: a shared cell cannot be "
                    "half frozen"),
      std::string::npos)
      << half.err;
  const auto adapter = expect_exit(2, trainer({"lora.toml", R"(train.freeze=["mlp"])"}));
  EXPECT_NE(adapter.err.find("train.freeze is given, and an adapter leaves all weights as they are"),
            std::string::npos);
  const auto nothing = expect_exit(2, trainer({"full.toml", R"(train.freeze=["attn_pool"])"}));
  EXPECT_NE(nothing.err.find("train.freeze \"attn_pool\" is found in no tensor's name"), std::string::npos)
      << nothing.err;
}

}  // namespace
}  // namespace tessera
