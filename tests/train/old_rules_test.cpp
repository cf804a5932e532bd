// A checkpoint of a program that kept no rules leads to the steps and losses that it would have reached;
// a new one keeps its rules.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "data/token_file.h"
#include "support/tiny_model.h"
#include "train/trainer.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// The AdamW run of tests/golden/old_rules: 29 rows of which 3 have no target, 7 epochs of batches of 7,
/// beta2 0.9999999.
class OldCheckpoint : public testing::Test {
 protected:
  OldCheckpoint() : world_(self_communicator()), own_("reference"), model_(settings()) {
    config_.train.epochs = 7;
    config_.train.batch = 7;
    config_.train.sequence_length = 16;
    config_.optimizer.lr = 0.05;
    config_.optimizer.beta2 = 0.9999999;
    config_.optimizer.warmup_ratio = 0.14;
    config_.evaluate.every = 8;
    config_.evaluate.rows = 3;
  }
  static fs::path golden() { return test::source_dir() / "tests/golden/old_rules"; }
  static Model::Settings settings() {
    Model::Settings settings;
    settings.model.path = golden() / "base";
    settings.model.init = "random";
    settings.adapter.method = "lora";
    settings.adapter.rank = 2;
    settings.adapter.targets = {"v_proj"};
    settings.train_base = false;
    settings.max_position = 16;
    settings.seed = 1;
    return settings;
  }
  PackedDataset data(const fs::path& file, Rules rules) {
    DataConfig config;
    config.train = file;
    config.cache = folder_ / "cache";
    const Tokenizer tokenizer = Tokenizer::load(test::source_dir() / "recipes/world/tokenizer");
    return {load_split(config, tokenizer, Split::train), 16, 1, rules};
  }
  TrainOutcome train(Rules rules, const fs::path& from) {
    const PackedDataset rows = data(golden() / "train.jsonl", rules), held_out = data(golden() / "eval.jsonl", rules);
    fs::remove_all(folder_ / "run");
    const RunFolder run(folder_ / "run", "auto");
    Reporter report(&run, Progress::none);
    return run_training({.config = config_,
                         .model = model_,
                         .data = rows,
                         .eval = &held_out,
                         .world = *world_,
                         .ctx = own_.ctx,
                         .report = report,
                         .folder = &run,
                         .resume_from = from,
                         .run_path = run.path(),
                         .rules = rules});
  }
  /// By the golden run's last lines.
  static std::pair<double, double> last_losses() {
    std::istringstream text(test::read_file(golden() / "adamw/metrics.jsonl"));
    double train = 0, eval = 0;
    for (std::string line; std::getline(text, line);) {
      const Json json = Json::parse(line, "metrics");
      (json.at("split").as_string() == "train" ? train : eval) = json.at("loss").as_number();
    }
    return {train, eval};
  }

  test::TemporaryFolder folder_;
  std::unique_ptr<Communicator> world_;
  test::OwnContext own_;
  Model model_;
  TrainerConfig config_;
};

TEST_F(OldCheckpoint, LeadsToTheLossesOfTheOldRules) {
  const fs::path file = golden() / "adamw/step-00000016.h5";
  EXPECT_EQ(read_checkpoint_meta(file).rules, Rules::first);
  const TrainOutcome outcome = train(Rules::first, file);
  EXPECT_EQ(outcome.meta.step, 30);
  const auto [train_loss, eval_loss] = last_losses();
  EXPECT_NEAR(outcome.meta.last_loss, train_loss, 1e-4);
  EXPECT_NEAR(objective_of("tokens").mean(outcome.meta.last_eval), eval_loss, 1e-4);
  EXPECT_EQ(read_checkpoint_meta(checkpoint_file(folder_ / "run/checkpoints", 30)).rules, Rules::first);
}

TEST_F(OldCheckpoint, FromTheStartHasTheLossesOfTheOldRules) {
  const TrainOutcome outcome = train(Rules::first, {});
  EXPECT_EQ(outcome.meta.step, 30);
  EXPECT_NEAR(outcome.meta.last_loss, last_losses().first, 1e-4);
}

TEST_F(OldCheckpoint, IsNotWhatANewRunLeaves) {
  const TrainOutcome outcome = train(kNewestRules, {});
  EXPECT_LT(outcome.meta.step, 30);
  EXPECT_EQ(read_checkpoint_meta(checkpoint_file(folder_ / "run/checkpoints", outcome.meta.step)).rules, kNewestRules);
}

}  // namespace
}  // namespace tessera
