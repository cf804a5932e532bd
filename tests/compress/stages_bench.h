#pragma once
// A frozen model of six blocks and everything that a stage works on.

#include <gtest/gtest.h>

#include "comm/data_groups.h"
#include "compress/gate_trainer.h"
#include "support/tiny_model.h"
#include "support/token_data.h"

namespace tessera::test {

class StagesBench : public testing::Test {
 protected:
  explicit StagesBench(TinyConfig config = {.layers = 6, .initializer_range = 0.3})
      : world_(self_communicator()), model_(tiny_settings(folder_.path(), config)) {
    train_.sequence_length = 12;
    fold_.calibration_rows = 4;
    fold_.gate_batch = 4;
    fold_.gate_steps = 20;
    fold_.cure = "none";  // tests of it ask for one
  }

  /// Of a block, or with -1 of the whole model; the test may change it.
  TensorView weight(int number) { return TensorView(model_.decoder().weight(number)->direct({&model_.pool()})); }
  const BlockWeights& block(int layer) { return model_.decoder().block_weights(layer); }
  int number_of(const std::string& name) {
    const auto& specs = model_.decoder().specs();
    for (size_t i = 0; i < specs.size(); ++i)
      if (specs[i].name == name) return static_cast<int>(i);
    ADD_FAILURE() << name;
    return -1;
  }
  void clear(int number) {
    for (float& x : weight(number).as<float>()) x = 0;
  }
  void clear_row(int number, int64_t row) {
    for (float& x : weight(number).slice_rows(row, row + 1).as<float>()) x = 0;
  }
  float& at(int number, int64_t row, int64_t col) {
    const TensorView view = weight(number);
    return view.as<float>()[static_cast<size_t>(row * view.cols() + col)];
  }

  /// Rows of one document each, whose tokens are the model's own choices behind a first one.
  void write_own_choices(int64_t documents) {
    TokenData data;
    for (int64_t d = 0; d < documents; ++d) {
      std::vector<int32_t> ids = {static_cast<int32_t>((7 * d + 1) % 23)};
      while (static_cast<int64_t>(ids.size()) < train_.sequence_length) {
        const Tensor logits = logits_of(own_.ctx, model_, ids);
        const auto last = logits.view().slice_rows(logits.shape()[0] - 1, logits.shape()[0]).as<float>();
        ids.push_back(static_cast<int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
        if (ids.size() % 4 == 0) ids.back() = static_cast<int32_t>((5 * d + static_cast<int64_t>(ids.size())) % 23);
      }
      data.tokens.insert(data.tokens.end(), ids.begin(), ids.end());
      for (size_t t = 0; t < ids.size(); ++t) data.scored.push_back(t % 4 != 3);  // but what was put in their place
      data.ends.push_back(static_cast<int64_t>(data.tokens.size()));
    }
    data.hash = "own choices";
    data_ = std::make_unique<PackedDataset>(std::move(data), train_.sequence_length, 1);
  }

  StageInputs inputs() { return inputs(*world_, model_, own_.ctx); }
  /// Those of one of several ranks that are threads. Only rank 0 may say something.
  StageInputs inputs(Communicator& world, Model& model, const Context& ctx) {
    if (!data_) data_ = std::make_unique<PackedDataset>(token_data(40, 12), 12, 1);
    return {.fold = fold_,
            .train = train_,
            .checkpoint = checkpoint_,
            .keys = {},
            .where_fold = "fold",
            .model = model,
            .data = *data_,
            .world = world,
            .ctx = ctx,
            .folder = folder_ / "compress",
            .say =
                [this, rank = world.rank()](const std::string& line) {
                  if (rank == 0) said_.push_back(line);
                },
            .stop_requested = [] { return false; },
            .share = data_share_of(world)};
  }
  /// The folded model in that folder, as another job reads it.
  std::unique_ptr<Model> loaded(const std::filesystem::path& in_folder = "sharing") const {
    Model::Settings settings;
    settings.model.path = folder_.path();
    settings.sharing.method = "fold";
    settings.sharing.load = folder_ / in_folder;
    settings.max_position = 64;
    auto model = std::make_unique<Model>(settings);
    model->assemble(own_.ctx);
    return model;
  }
  GateUnits units() { return gate_units(fold_, model_.decoder().specs(), model_.decoder().num_layers()); }

  TemporaryFolder folder_;
  OwnContext own_;
  std::unique_ptr<Communicator> world_;
  Model model_;
  std::unique_ptr<PackedDataset> data_;
  FoldConfig fold_;
  TrainConfig train_;
  CheckpointConfig checkpoint_;
  std::vector<std::string> said_;
};

}  // namespace tessera::test
