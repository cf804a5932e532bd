// The training loop itself, alone: what it sends, when it evaluates and saves, and how it breaks.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "io/files.h"
#include "train/training.h"

namespace tessera {
namespace {

class Loop : public test::Training {
 protected:
  Loop() { config_.train.steps = 6; }
  std::unique_ptr<Model> make_model(const std::string& method) {
    Model::Settings settings = test::tiny_settings(folder_.path());
    settings.adapter.method = method;
    settings.adapter.rank = 2;
    settings.train_base = method == "none";
    return std::make_unique<Model>(settings);
  }
  TrainOutcome train(Model& model, std::function<bool()> stop = {}) {
    TrainerInputs in = inputs(model);
    in.stop_requested = std::move(stop);
    return run_training(in);
  }
};

TEST_F(Loop, StopsAfterTheStepInHand) {
  const auto model = make_model("mos");
  int asked = 0;
  const TrainOutcome outcome = train(*model, [&] { return ++asked == 3; });
  EXPECT_TRUE(outcome.stopped);
  EXPECT_EQ(outcome.meta.step, 3);
  EXPECT_EQ(outcome.meta.tokens, 3 * 4 * 12);
}

TEST_F(Loop, AStopAskedForInTheLastStepChangesNothing) {
  const auto model = make_model("mos");
  int asked = 0;
  EXPECT_FALSE(train(*model, [&] { return ++asked == 6; }).stopped);
}

TEST_F(Loop, LeavesAnEvaluationBetweenTwoBatchesAndOwesIt) {
  const PackedDataset held_out(test::token_data(8, 12), 12, 1);  // 8 batches of one row
  config_.train.micro_batch = 1;
  config_.evaluate.every = 2;
  const RunFolder folder(folder_.path() / "run", "auto");
  const auto train_with = [&](std::function<bool()> stop, const std::filesystem::path& from) {
    const auto model = make_model("mos");
    TrainerInputs in = inputs(*model);
    in.eval = &held_out;
    in.folder = &folder;
    in.resume_from = from;
    in.stop_requested = std::move(stop);
    return run_training(in);
  };
  const TrainOutcome straight = train_with({}, {});
  int asked = 0;
  // Asked for each batch of the first evaluation, once behind it, once in each of two steps, then for each batch again.
  const TrainOutcome left = train_with([&] { return ++asked == 8 + 1 + 2 + 3; }, {});
  EXPECT_TRUE(left.stopped);
  EXPECT_EQ(left.meta.step, 2);
  EXPECT_TRUE(left.meta.owes_evaluation);
  EXPECT_EQ(asked, 14) << "the evaluation went on";
  const auto file = checkpoint_file(folder / "checkpoints", 2);
  EXPECT_TRUE(read_checkpoint_meta(file).owes_evaluation);

  asked = 0;
  const TrainOutcome again = train_with([&] { return ++asked == 5; }, file);
  EXPECT_TRUE(again.stopped);
  EXPECT_EQ(again.meta.step, 2) << "a step was taken before the owed evaluation was made";
  EXPECT_EQ(asked, 5);

  const TrainOutcome whole = train_with({}, file);
  EXPECT_FALSE(whole.stopped);
  EXPECT_FALSE(whole.meta.owes_evaluation);
  EXPECT_EQ(whole.meta.last_eval["nll"], straight.meta.last_eval["nll"]);
  EXPECT_EQ(whole.meta.best_loss, straight.meta.best_loss);
  EXPECT_FALSE(read_checkpoint_meta(checkpoint_file(folder / "checkpoints", 6)).owes_evaluation);
}

TEST_F(Loop, NamesThePoolTheRowAndTheLayersOfABrokenNumber) {
  const auto model = make_model("mos");
  const std::string slot = "mos.self_attn.q_proj.pool_a";
  const TensorView pool = test::slot_of(model->pool(), slot);
  const int64_t row = pool.shape[0] - 1;  // private rows come last: one layer reads it
  pool.row<float>(row)[1] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> before(test::slot_of(model->pool(), "mos.mlp.up_proj.pool_a").as<float>().begin(),
                                  test::slot_of(model->pool(), "mos.mlp.up_proj.pool_a").as<float>().end());
  try {
    train(*model);
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_EQ(error.where(), "step 1");
    EXPECT_EQ(error.message(), "the loss or the gradient is not finite: value nan of pool " + slot + " row " +
                                   std::to_string(row) + ", read by layers 2");
  }
  const TensorView after = test::slot_of(model->pool(), "mos.mlp.up_proj.pool_a");
  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.as<float>().begin())) << "the step was taken";
}

TEST_F(Loop, TheLossIsTheSumOverTheGlobalCountWhateverTheMicroBatch) {
  std::vector<double> last;
  for (const int64_t rows : {1, 3, 4}) {
    config_.train.micro_batch = rows;
    last.push_back(train(*make_model("lora")).meta.last_loss);
  }
  EXPECT_NEAR(last[1] / last[0], 1, 1e-6);
  EXPECT_NEAR(last[2] / last[0], 1, 1e-6);
}

}  // namespace
}  // namespace tessera
