// Runs under 1 to 8 ranks, and jobs whose ranks disagree or die.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::ContainsRegex;
using testing::HasSubstr;

class Ranks : public test::Workbench {
 protected:
  void SetUp() override { TESSERA_NEEDS_MPI(); }

  /// The run of a recipe under so many ranks; its name.
  std::string train(const std::string& recipe, int count, const std::string& name = "") {
    const std::string run = name.empty() ? recipe + "-" + std::to_string(count) : name;
    expect_done(ranks(count, {recipe + ".toml", "run.dir=" + run}));
    return run;
  }
  void expect_agreement(const std::string& recipe) {
    expect_done(trainer({recipe + ".toml", "run.dir=alone"}));
    const auto alone = losses("alone");
    ASSERT_EQ(alone.size(), 50u);
    EXPECT_LT(alone.back(), 0.97 * alone.front());
    for (const int count : {1, 2, 3, 4, 8}) {
      const std::string run = train(recipe, count);
      const double train_difference = test::largest_relative_difference(alone, losses(run));
      RecordProperty("ranks_" + std::to_string(count), std::to_string(train_difference * 1e9) + "e-9");
      EXPECT_LE(train_difference, 1e-6) << count << " ranks";
      EXPECT_LE(test::largest_relative_difference(losses("alone", "eval"), losses(run, "eval")), 1e-6);
      if (count == 1) {
        EXPECT_EQ(saved_bytes(run), saved_bytes("alone"));
      }
    }
  }
};

TEST_F(Ranks, AgreeOnLossesInFullTraining) { expect_agreement("full"); }
TEST_F(Ranks, AgreeOnLossesOfLoraWithDropout) { expect_agreement("lora"); }
TEST_F(Ranks, AgreeOnLossesAndTablesOfMosWithDropout) {
  expect_agreement("mos");
  // The tables' hashes are part of the description, as are the base's.
  const auto tables = [&](const std::string& run) {
    return Json::parse(test::read_file(*this / run / "adapter/adapter.json"), run).at("adapter").dump();
  };
  for (const char* run : {"mos-2", "mos-3", "mos-4", "mos-8"}) EXPECT_EQ(tables(run), tables("alone")) << run;
}

TEST_F(Ranks, AgreeOnLossesAndAddressesOfSharedWeights) {
  expect_agreement("rps");
  const auto description = [&](const std::string& run) {
    return Json::parse(test::read_file(*this / run / "sharing/sharing.json"), run).at("sharing").dump();
  };
  for (const char* run : {"rps-2", "rps-3", "rps-4", "rps-8"}) EXPECT_EQ(description(run), description("alone")) << run;
}

TEST_F(Ranks, RepeatARunBitForBit) {
  for (const char* recipe : {"full", "mos", "rps"}) {
    const std::string first = train(recipe, 3, std::string(recipe) + "-first"),
                      second = train(recipe, 3, std::string(recipe) + "-second");
    EXPECT_EQ(timeless_metrics(first), timeless_metrics(second));
    EXPECT_EQ(saved_bytes(first), saved_bytes(second));
  }
}

TEST_F(Ranks, SendOnlyTheTrainedParametersGradients) {
  for (const std::string recipe : {"mos", "rps"}) {
    const std::string run = train(recipe, 2);
    const int64_t trained = metrics(run).back().at("trained_parameters").as_integer();
    EXPECT_EQ(trained, recipe == "mos" ? 2048 : 4915 + 2208);
    for (const Json& line : metrics(run))
      if (const Json* bytes = line.find("comm_bytes")) {
        // Beside the gradients a step tells its loss, its scored tokens and whether to stop: three doubles.
        EXPECT_EQ(bytes->as_integer(), 4 * trained + 24);
      }
  }
}

TEST_F(Ranks, ThatWereGivenDifferentRecipesAreToldSoOnce) {
  const Words words = {"mos.toml", "run.dir=run"};
  const test::Ended ended =
      expect_exit(2, ranks_with({joined(words, {"train.seed=1"}), joined(words, {"train.seed=2"})}));
  EXPECT_THAT(ended.err, HasSubstr("the ranks differ in the recipe\n"
                                   "  rank 0: ...\"train.seed = 1\"...\n"
                                   "  rank 1: ...\"train.seed = 2\"...\n"
                                   "  every rank must run the same program on the same recipe and the same files\n"));
  EXPECT_EQ(test::occurrences(ended.err, "the ranks differ"), 1);
  EXPECT_FALSE(fs::exists(*this / "run/metrics.jsonl"));
}

TEST_F(Ranks, ThatWereGivenDifferentJobsDoNotHang) {
  const Words words = {"mos.toml", "run.dir=run"};
  EXPECT_THAT(expect_exit(2, ranks_with({words, joined(words, {"--check"})})).err,
              HasSubstr("the ranks differ in the recipe"));
}

TEST_F(Ranks, ThatReadDifferentDataAreToldSoOnce) {
  fs::create_directories(*this / "other");
  fs::copy(*this / "eval.jsonl", *this / "other/train.jsonl");
  const Words arguments = {(*this / "mos.toml").string(), "run.dir=" + (*this / "run").string(),
                           "data.cache=" + (*this / "cache").string(), "data.train=/proc/self/cwd/train.jsonl",
                           "data.eval=" + (*this / "eval.jsonl").string()};
  const test::Ended ended = expect_exit(2, ranks_with({arguments, arguments}, {"", "other"}));
  EXPECT_THAT(ended.err, HasSubstr("the ranks differ in the training data"));
  EXPECT_EQ(test::occurrences(ended.err, "the ranks differ"), 1);
}

TEST_F(Ranks, ThatReadAnotherConfigAreToldSoOnce) {
  fs::create_directories(*this / "other");
  fs::copy(*this / "base", *this / "other/base");
  std::string config = test::read_file(*this / "base/config.json");
  ASSERT_EQ(config.find("rope_theta"), std::string::npos);
  config.insert(config.find('{') + 1, "\"rope_theta\": 20000.0, ");
  test::write_file(*this / "other/base/config.json", config);
  for (const char* recipe : {"mos.toml", "spsa.toml"}) {
    const Words arguments = {(*this / recipe).string(), "run.dir=" + (*this / "run").string(),
                             "data.cache=" + (*this / "cache").string(), "model.path=/proc/self/cwd/base"};
    const test::Ended ended = expect_exit(2, ranks_with({arguments, arguments}, {"", "other"}));
    EXPECT_THAT(ended.err, HasSubstr("the ranks differ in the numbers of config.json"));
    EXPECT_EQ(test::occurrences(ended.err, "the ranks differ"), 1);
  }
}

TEST_F(Ranks, ThatDoNotAllSeeTheCheckpointToEvaluateAreToldSoOnce) {
  expect_done(trainer({"mos.toml", "run.dir=run", "train.steps=2", "checkpoint.every=1"}));
  const auto put = [&](const std::string& step, const std::string& where) {
    fs::copy_file(*this / "run/checkpoints" / ("step-0000000" + step + ".h5"), *this / where,
                  fs::copy_options::overwrite_existing);
  };
  fs::create_directories(*this / "other");
  put("2", "step.h5");
  const Words words = {(*this / "mos.toml").string(), "job=evaluate", "run.dir=" + (*this / "elsewhere").string(),
                       "data.cache=" + (*this / "cache").string(), "run.resume=/proc/self/cwd/step.h5"};
  const test::Command command = ranks_with({words, words}, {"", "other"});
  const auto refused = [&](const std::string& what) {
    const test::Ended ended = expect_exit(2, command);
    EXPECT_EQ(test::occurrences(ended.err, what), 1) << ended.err;
    EXPECT_THAT(ended.out, testing::Not(HasSubstr("\"loss\"")));
  };
  refused("rank 1: command line: run.resume \"/proc/self/cwd/step.h5\" does not exist\n");
  put("1", "other/step.h5");
  refused("the ranks differ in the trained parameters\n");
  put("2", "other/step.h5");
  const std::string out = expect_done(command).out;
  const Json line = Json::parse(out.substr(out.find('{')), "evaluate");
  EXPECT_NEAR(line.at("loss").as_number() / losses("run", "eval").back(), 1, 1e-6);
}

/// What tasks of `srun` see on a cluster whose default is not PMIx: without PMI, and with it.
TEST_F(Ranks, OfSrunWithoutPmixAreToldHowToStartAndOnlyOnce) {
  const std::map<std::string, std::string> slurm = {{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_NTASKS", "2"}};
  for (const char* rank : {"0", "1"})
    for (const bool has_pmi : {false, true}) {
      test::Command command = trainer({"mos.toml", "run.dir=run"});
      command.environment.insert(slurm.begin(), slurm.end());
      command.environment["SLURM_PROCID"] = rank;
      command.environment["PMI_RANK"] = has_pmi ? rank : "";
      command.environment["PMI_SIZE"] = has_pmi ? "2" : "";
      const test::Ended ended = expect_exit(2, command);
      if (std::string(rank) == "0" || has_pmi) {
        EXPECT_THAT(ended.err, HasSubstr("`srun --mpi=pmix`"));
      } else {
        EXPECT_EQ(ended.err, "") << "rank 0 says it";
      }
    }
  EXPECT_FALSE(fs::exists(*this / "run"));
}

TEST_F(Ranks, EndSoonWhenOneIsKilled) {
  for (const size_t victim : {0, 1, 2}) {
    test::Process job(ranks(3, {"mos.toml", "train.steps=100000", "run.dir=run-" + std::to_string(victim)}));
    const fs::path lines = *this / ("run-" + std::to_string(victim)) / "metrics.jsonl";
    ASSERT_TRUE(test::wait_until([&] { return fs::exists(lines) && fs::file_size(lines) > 1000; }));
    const auto pids = job.children();
    ASSERT_EQ(pids.size(), 3u);
    kill(pids[victim], SIGKILL);
    const test::Ended ended = job.wait(30);
    EXPECT_FALSE(ended.timed_out);
    EXPECT_EQ(ended.exit_code, 137);
  }
}

TEST_F(Ranks, ThatBreakTogetherSayItOnce) {
  const test::Ended ended = expect_exit(2, ranks(3, {"mos.toml", "run.dir=run", "optimizer.lr=1e30"}));
  EXPECT_EQ(test::occurrences(ended.err, "is not finite"), 1) << ended.err;
  EXPECT_THAT(
      ended.err,
      ContainsRegex(
          "step [0-9]+: the loss or the gradient is not finite: [a-z]+ -?(nan|inf) of pool mos[.][a-z_.]+[.]pool_[ab] row [0-9]+, "
          "read by layers [01, none]+\n"));
}

}  // namespace
}  // namespace tessera
