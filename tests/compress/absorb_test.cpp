// Gates that stay between 0 and 1: the folded model computes what the softly gated one does.

#include "compress/absorb.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/calibration.h"
#include "compress/json_numbers.h"
#include "compress/moments.h"
#include "compress/stages_bench.h"
#include "core/error.h"
#include "io/files.h"
#include "model/fold/plan_file.h"
#include "support/folds.h"

namespace tessera {
namespace {

class Absorbing : public test::StagesBench {
 protected:
  explicit Absorbing(const test::TinyConfig& config = {.layers = 6}) : StagesBench(config) {
    fold_.gates = "sublayer";
    fold_.absorb = true;
    fold_.keep_head = 0;
    create_folder(folder_ / "compress");
    write("gates.json", Json::object().set("gate", array_of(gates_)).set("theta", array_of(gates_)));
    Json::Array halves = {Json::object().set("block", 2).set("part", "mlp"),
                          Json::object().set("block", 4).set("part", "attention")};
    write("removed.json", Json::object().set("removed", Json::Array{Json(1)}).set("removed_halves", std::move(halves)));
    write("probe.json", Json::object().set("bi", Json::Array{Json(0.5)}));
  }
  void write(const std::string& name, const Json& json) { write_text_file(folder_ / "compress" / name, json.dump()); }
  Json fold() {
    write_text_file(folder_ / "compress/fold_plan.json", find_stage("group").run(inputs()).text);
    return find_stage("share").run(inputs()).file;
  }
  /// Softly gated where halves are kept, shut where they are removed.
  std::vector<double> kept() const {
    std::vector<double> gates = gates_;
    for (const size_t shut : {2, 3, 5, 8}) gates[shut] = 0;
    return gates;
  }

  std::vector<double> gates_ = {1, 1, 0.02, 0.01, 0.75, 0.03, 0.5, 0.9, 0.04, 0.6, 1, 0.8};
};

TEST_F(Absorbing, TheFoldedModelComputesWhatTheGatedOneDoes) {
  fold_.group = 1;
  const Json shared = fold();
  const std::vector<double> gates = kept();
  const BlockGates gated{BlockGates::Of::sublayers, gates};
  const auto model = loaded();
  const double soft = calibration_loss(inputs(), model_, gated);
  EXPECT_NEAR(calibration_loss(inputs(), *model, {}), soft, 1e-6 * soft);
  const std::vector<double> open = open_halves(folded_base(model->sharing())->plan());
  EXPECT_NE(calibration_loss(inputs(), model_, {BlockGates::Of::sublayers, open}), soft);
  const double removed = shared.at("perplexity").at("removed").as_number();
  EXPECT_NEAR(removed, std::exp(soft), 1e-5 * std::exp(soft)) << "told of the gates that stay";
  int64_t stored = 0;
  for (SlotId id = 0; id < model->pool().count(); ++id) stored += model->pool().values(id).shape.count();
  EXPECT_EQ(shared.at("parameters_stored").as_integer(), stored);
}

TEST_F(Absorbing, SharingStartsFromTheGatedProjections) {
  fold_.child = "lora";
  fold_.child_rank = 16;
  fold_.group = 2;
  write("removed.json", Json::object().set("removed", Json::Array{Json(1)}).set("removed_halves", Json::Array{}));
  const Json shared = fold();
  EXPECT_LT(shared.at("groups").as_integer(), 5);
  std::vector<double> gates = gates_;
  gates[2] = gates[3] = 0;
  const double soft = calibration_loss(inputs(), model_, {BlockGates::Of::sublayers, gates});
  EXPECT_NEAR(calibration_loss(inputs(), *loaded(), {}), soft, 1e-4 * soft) << "deltas of full rank lose nothing";
}

/// Every linear has a bias: that of o and down is part of what the half adds.
class AbsorbingBiases : public Absorbing {
 protected:
  AbsorbingBiases() : Absorbing({.layers = 6, .biases = true}) {
    const auto& specs = model_.decoder().specs();
    for (size_t i = 0; i < specs.size(); ++i)
      if (specs[i].role == Role::bias) test::fill_normal(weight(static_cast<int>(i)), 3 + i, 0.3);
  }
};

TEST_F(AbsorbingBiases, TheFoldedModelComputesWhatTheGatedOneDoes) {
  fold_.group = 1;
  fold();
  const std::vector<double> gates = kept();
  const double soft = calibration_loss(inputs(), model_, {BlockGates::Of::sublayers, gates});
  EXPECT_NEAR(calibration_loss(inputs(), *loaded(), {}), soft, 1e-6 * soft);
}

TEST_F(AbsorbingBiases, ChildrenHaveTheirOwn) {
  fold_.child = "lora";
  fold_.child_rank = 16;
  fold_.group = 2;
  write("removed.json", Json::object().set("removed", Json::Array{Json(1)}).set("removed_halves", Json::Array{}));
  EXPECT_LT(fold().at("groups").as_integer(), 5);
  std::vector<double> gates = gates_;
  gates[2] = gates[3] = 0;
  const double soft = calibration_loss(inputs(), model_, {BlockGates::Of::sublayers, gates});
  EXPECT_NEAR(calibration_loss(inputs(), *loaded(), {}), soft, 1e-4 * soft) << "deltas of full rank lose nothing";
}

TEST_F(Absorbing, ProjectionsAreRoundedOnceToTheirType) {
  const test::TemporaryFolder folder;
  Model bf16(test::tiny_settings(folder.path(), {.layers = 6, .dtype = "bfloat16"}));
  const FoldPlan plan = identity_plan({.fingerprint = {}, .layers = 6, .model_type = "llama"});
  const AbsorbedWeights absorbed(bf16, plan, gates_);
  EXPECT_EQ(absorbed.of(0, Part::o), nullptr) << "a gate of 1";
  EXPECT_EQ(absorbed.of(3, Part::q), nullptr);
  const auto product = absorbed.of(3, Part::down);
  ASSERT_TRUE(product);
  const ConstView weight = bf16.decoder().weight(bf16.decoder().block_weights(3).down)->direct({&bf16.pool()});
  ASSERT_EQ(product->dtype(), DType::bf16);
  ASSERT_EQ(weight.dtype, DType::bf16);
  for (int64_t i = 0; i < weight.shape.count(); ++i)
    EXPECT_EQ(element(product->view(), i), to_float(to_bfloat16(0.9f * static_cast<float>(element(weight, i)))));
}

}  // namespace
}  // namespace tessera
