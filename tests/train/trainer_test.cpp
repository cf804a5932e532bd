// The training loop itself, alone: what it sends, when it evaluates and saves, and how it breaks.

#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "io/files.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

TokenData tokens_of(int64_t documents, int64_t length) {
  TokenData data;
  for (int64_t d = 0; d < documents; ++d) {
    for (int64_t t = 0; t < length; ++t) {
      data.tokens.push_back(static_cast<int32_t>((3 * d + t) % 23));
      data.scored.push_back(1);
    }
    data.ends.push_back(static_cast<int64_t>(data.tokens.size()));
  }
  data.hash = "made up";
  return data;
}

class Loop : public testing::Test {
 protected:
  Loop() : world_(self_communicator()), data_(tokens_of(20, 12), 12, 1), report_(nullptr, Progress::none) {
    config_.train.steps = 6;
    config_.train.batch = 4;
    config_.train.sequence_length = 12;
    config_.optimizer.lr = 1e-2;
  }
  std::unique_ptr<Model> make_model(const std::string& method) {
    Model::Settings settings = test::tiny_settings(folder_.path());
    settings.adapter.method = method;
    settings.adapter.rank = 2;
    settings.train_base = method == "none";
    return std::make_unique<Model>(settings);
  }
  TrainOutcome train(Model& model, std::function<bool()> stop = {}) {
    return run_training({.config = config_,
                         .model = model,
                         .data = data_,
                         .world = *world_,
                         .ctx = own_.ctx,
                         .report = report_,
                         .stop_requested = std::move(stop)});
  }

  test::TemporaryFolder folder_;
  test::OwnContext own_;
  std::unique_ptr<Communicator> world_;
  PackedDataset data_;
  Reporter report_;
  TrainerConfig config_;
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
  const PackedDataset held_out(tokens_of(8, 12), 12, 1);  // 8 batches of one row
  config_.train.micro_batch = 1;
  config_.evaluate.every = 2;
  const RunFolder folder(folder_.path() / "run", "auto");
  const auto train_with = [&](std::function<bool()> stop, const std::filesystem::path& from) {
    const auto model = make_model("mos");
    return run_training({.config = config_,
                         .model = *model,
                         .data = data_,
                         .eval = &held_out,
                         .world = *world_,
                         .ctx = own_.ctx,
                         .report = report_,
                         .folder = &folder,
                         .resume_from = from,
                         .stop_requested = std::move(stop)});
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
