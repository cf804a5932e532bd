// Runs that stop, are stopped or are killed, and go on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <random>

#include "support/random_seed.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;
using testing::IsEmpty;

class Resume : public test::Workbench {
 protected:
  /// The straight run that others are compared with.
  void train_straight(const std::string& recipe, const Words& more = {}, int count = 0) {
    const Words words = joined({recipe + ".toml", "run.dir=straight"}, more);
    expect_done(count ? ranks(count, words) : trainer(words));
  }
  /// Starts the command, waits for so many lines of metrics and sends the signal; the last step of the checkpoint it
  /// left.
  int64_t stop(const test::Command& command, const std::string& run, int signal, int64_t lines = 10) {
    test::Process process(command);
    wait_for_lines(run, lines);
    process.send(signal);
    const test::Ended ended = process.wait();
    EXPECT_FALSE(ended.timed_out);
    EXPECT_EQ(ended.exit_code, 130) << ended.out << ended.err;
    EXPECT_THAT(ended.out, HasSubstr("; the same command goes on\n"));
    EXPECT_EQ(checkpoints(run).size(), 1u);
    return checkpoints(run).empty() ? -1 : std::stol(checkpoints(run).back().substr(5));
  }
  /// A stopped run of mos.toml with checkpoints of steps 10, 20 and 30 of 50; its folder's name.
  std::string stopped_run() {
    expect_done(trainer({"mos.toml", "run.dir=run", "checkpoint.every=10", "checkpoint.keep=9"}));
    for (const char* gone : {"checkpoints/step-00000040.h5", "checkpoints/step-00000050.h5", "adapter/mos.safetensors"})
      fs::remove(*this / "run" / gone);
    forget_end("run");
    return "run";
  }
  static void flip_a_bit(const fs::path& file) {
    std::string bytes = test::read_file(file);
    bytes[bytes.size() / 2] ^= 4;
    test::write_file(file, bytes);
  }
  fs::path checkpoint(int step) { return *this / ("run/checkpoints/step-000000" + std::to_string(step) + ".h5"); }
};

TEST_F(Resume, AfterATerminationGoesOnToTheSameBits) {
  for (const char* recipe : {"mos", "full", "rps"}) {
    fs::remove_all(*this / "straight");
    train_straight(recipe, {"train.steps=100"});
    const std::string run = std::string(recipe) + "-run";
    const auto command = trainer({std::string(recipe) + ".toml", "train.steps=100", "run.dir=" + run});
    const int64_t step = stop(command, run, SIGTERM);
    EXPECT_GE(step, 9);
    EXPECT_LT(step, 100);
    EXPECT_THAT(expect_done(command).out, HasSubstr("going on from step " + std::to_string(step) + " ("));
    expect_same_run(run);
  }
}

TEST_F(Resume, AfterAnInterruptGoesOnWithSgdToo) {
  train_straight("lora", {"train.steps=100", "optimizer.name=sgd", "optimizer.lr=0.1"});
  const auto command =
      trainer({"lora.toml", "train.steps=100", "optimizer.name=sgd", "optimizer.lr=0.1", "run.dir=run"});
  stop(command, "run", SIGINT);
  expect_done(command);
  expect_same_run("run");
}

TEST_F(Resume, UnderMpirunAUserSignalStopsAllRanksAfterACheckpoint) {
  TESSERA_NEEDS_MPI();
  for (const std::string recipe : {"mos", "rps"}) {
    for (const char* left : {"straight", "run"}) fs::remove_all(*this / left);
    train_straight(recipe, {"train.steps=100"}, 2);
    const auto command = ranks(2, {recipe + ".toml", "train.steps=100", "run.dir=run"});
    const int64_t step = stop(command, "run", SIGUSR1);
    EXPECT_LT(step, 100);
    expect_done(command);
    expect_same_run("run");
  }
}

TEST_F(Resume, FromAnotherNumberOfRanksAgreesTo1e6) {
  TESSERA_NEEDS_MPI();
  for (const std::string recipe : {"mos", "rps"}) {
    for (const char* left : {"straight", "run"}) fs::remove_all(*this / left);
    train_straight(recipe, {"train.steps=100"});
    stop(ranks(2, {recipe + ".toml", "train.steps=100", "run.dir=run"}), "run", SIGUSR1);
    expect_done(ranks(3, {recipe + ".toml", "train.steps=100", "run.dir=run"}));
    EXPECT_LE(test::largest_relative_difference(losses("straight"), losses("run")), 1e-6);
    EXPECT_LE(test::largest_relative_difference(losses("straight", "eval"), losses("run", "eval")), 1e-6);
  }
}

TEST_F(Resume, ASecondTerminationEndsAtOnce) {
  // A step of a million rows: nothing but the second signal can end it.
  test::Process process(trainer({"mos.toml", "train.batch=1000000", "run.dir=run"}));
  const fs::path file = *this / "run/metrics.jsonl";
  ASSERT_TRUE(test::wait_until([&] { return fs::exists(file) && fs::file_size(file) > 0; }));
  process.send(SIGTERM);
  process.send(SIGTERM);  // with the first: one and the same wish
  test::sleep_seconds(0.7);
  EXPECT_TRUE(process.running());
  process.send(SIGTERM);
  const test::Ended ended = process.wait(5);
  EXPECT_FALSE(ended.timed_out);
  EXPECT_EQ(ended.exit_code, 130);
  EXPECT_THAT(checkpoints("run"), IsEmpty());
}

TEST_F(Resume, UnderMpirunATerminationLeavesTheLastCheckpoint) {
  TESSERA_NEEDS_MPI();
  test::Process process(ranks(2, {"mos.toml", "train.steps=100000", "checkpoint.every=5", "run.dir=run"}));
  ASSERT_TRUE(test::wait_until([&] { return !checkpoints("run").empty(); }));
  process.send(SIGTERM);
  const test::Ended ended = process.wait(10);
  EXPECT_FALSE(ended.timed_out);
  EXPECT_NE(ended.exit_code, 0);
  EXPECT_THAT(
      expect_exit(0, ranks(2, {"mos.toml", "train.steps=100000", "checkpoint.every=5", "run.dir=run", "--check"})).out,
      HasSubstr("in order"));
}

TEST_F(Resume, SurvivesTwentyKillsAlone) {
  train_straight("mos", {"train.steps=120", "checkpoint.every=1"});
  const auto command = trainer({"mos.toml", "train.steps=120", "checkpoint.every=1", "run.dir=run"});
  const uint32_t seed = test::random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> moment(0, 0.6);
  for (int kills = 0; kills < 20;) {
    test::Process process(command);
    test::sleep_seconds(moment(random));
    if (!process.running()) {  // it was done: compare, and begin another
      ASSERT_EQ(process.wait().exit_code, 0);
      expect_same_run("run");
      fs::remove_all(*this / "run");
      continue;
    }
    process.send(SIGKILL);
    EXPECT_FALSE(process.wait().timed_out);
    ++kills;
  }
  expect_done_like(command, "straight");
}

TEST_F(Resume, SurvivesTwentyKillsOfARankOrOfMpirun) {
  TESSERA_NEEDS_MPI();
  train_straight("mos", {"train.steps=120", "checkpoint.every=1"}, 2);
  const auto command = ranks(2, {"mos.toml", "train.steps=120", "checkpoint.every=1", "run.dir=run"});
  const uint32_t seed = test::random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> moment(0.1, 1.2);
  for (int kills = 0; kills < 20;) {
    test::Process process(command);
    test::sleep_seconds(moment(random));
    const auto pids = process.children();
    if (!process.running()) {
      ASSERT_EQ(process.wait().exit_code, 0);
      expect_same_run("run");
      fs::remove_all(*this / "run");
      continue;
    }
    const size_t victim = random() % 3;  // a rank or mpirun
    kill(victim < pids.size() ? pids[victim] : process.pid(), SIGKILL);
    const test::Ended ended = process.wait(60);
    EXPECT_FALSE(ended.timed_out) << ended.out << ended.err;
    ++kills;
  }
  expect_done_like(command, "straight");
}

TEST_F(Resume, RemovesWhatAKilledRunLeft) {
  const std::string run = stopped_run();
  for (const char* left :
       {".recipe.toml.tmp-1", "checkpoints/.step-00000031.h5.tmp-77", "adapter/.mos.safetensors.tmp-123"})
    test::write_file(*this / run / left, "half");
  expect_done(trainer({"mos.toml", "run.dir=run"}));
  EXPECT_THAT(temporaries(run), IsEmpty());
}

TEST_F(Resume, NamesADamagedCheckpointAndTakesTheOneBefore) {
  train_straight("mos");
  stopped_run();
  fs::resize_file(checkpoint(30), fs::file_size(checkpoint(30)) - 100);
  const test::Ended truncated = expect_done(trainer({"mos.toml", "run.dir=run", "checkpoint.keep=9"}));
  EXPECT_THAT(truncated.out, HasSubstr("step-00000030.h5: has "));
  EXPECT_THAT(truncated.out, HasSubstr(", its seal says "));
  EXPECT_THAT(truncated.out, HasSubstr("\n  this checkpoint is skipped\n"));
  EXPECT_THAT(truncated.out, testing::Not(HasSubstr("take another copy")));
  EXPECT_THAT(truncated.out, HasSubstr("\ngoing on from step 20 (step-00000020.h5)\n"));
  expect_same_run("run");

  fs::remove_all(*this / "run");
  stopped_run();
  flip_a_bit(checkpoint(30));
  flip_a_bit(checkpoint(20));
  const test::Ended altered = expect_done(trainer({"mos.toml", "run.dir=run"}));
  EXPECT_EQ(test::occurrences(altered.out, "this checkpoint is skipped"), 2) << altered.out;
  EXPECT_THAT(altered.out, HasSubstr("going on from step 10 (step-00000010.h5)\n"));
  expect_same_run("run");
}

TEST_F(Resume, DoesNotStartAnewWhenEveryCheckpointIsDamaged) {
  stopped_run();
  const std::string before = test::read_file(*this / "run/metrics.jsonl");
  for (const int step : {10, 20, 30}) flip_a_bit(checkpoint(step));
  const test::Ended ended = expect_exit(2, trainer({"mos.toml", "run.dir=run"}));
  EXPECT_THAT(ended.err, HasSubstr("run/checkpoints: every checkpoint of this run is damaged\n"));
  for (const int step : {10, 20, 30}) EXPECT_THAT(ended.err, HasSubstr(checkpoint(step).filename().string()));
  EXPECT_THAT(ended.err, EndsWith("put back a copy, or remove the folder to train from the start\n"));
  EXPECT_EQ(test::read_file(*this / "run/metrics.jsonl"), before);
}

TEST_F(Resume, RefusesAChangedKeyWithBothValues) {
  stopped_run();
  const test::Ended ended =
      expect_exit(2, trainer({"mos.toml", "run.dir=run", "optimizer.lr=0.5", "adapter.dropout=0.25"}));
  EXPECT_EQ(ended.err,
            "run/checkpoints/step-00000030.h5: this run cannot go on with another recipe\n"
            "  optimizer.lr was 0.005, now 0.5\n"
            "  adapter.dropout was 0.1, now 0.25\n"
            "  undo the change, or start anew with run.resume=never or another run.dir\n");
}

TEST_F(Resume, MayChangeHowItIsRunSavedLoggedAndEvaluated) {
  train_straight("mos");
  stopped_run();
  expect_done(trainer({"mos.toml", "run.dir=run", "run.threads=2", "checkpoint.every=20", "checkpoint.keep=1",
                       "log.every=3", "evaluate.every=25", "evaluate.rows=4"}));
  EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));
  EXPECT_EQ(checkpoints("run"), std::vector<std::string>{"step-00000050.h5"});
}

TEST_F(Resume, RefusesOtherDataAndAnotherBase) {
  stopped_run();
  const std::string data = test::read_file(*this / "train.jsonl");
  test::write_file(*this / "train.jsonl", data + "{\"text\": \"copy da = da\"}\n");
  EXPECT_THAT(expect_exit(2, trainer({"mos.toml", "run.dir=run"})).err,
              HasSubstr("this run cannot go on with other training data"));
  test::write_file(*this / "train.jsonl", data);
  std::string config = test::read_file(*this / "base/config.json");
  config.replace(config.find("0.08"), 4, "0.07");
  test::write_file(*this / "base/config.json", config);
  EXPECT_THAT(expect_exit(2, trainer({"mos.toml", "run.dir=run"})).err,
              HasSubstr("this run cannot go on with another base model"));
}

TEST_F(Resume, DropsMetricsAfterTheCheckpointAndATornLine) {
  train_straight("mos");
  const std::string run = stopped_run();
  test::write_file(*this / run / "metrics.jsonl",
                   test::read_file(*this / run / "metrics.jsonl") + "{\"step\":51,\"spl");
  expect_done(trainer({"mos.toml", "run.dir=run"}));
  expect_same_run(run);
}

TEST_F(Resume, AFinishedRunPrintsItsLastLine) {
  train_straight("mos");
  const std::string last = metrics("straight").back().dump() + "\n";
  const test::Ended ended = expect_done(trainer({"mos.toml", "run.dir=straight"}));
  EXPECT_EQ(ended.out, last);
  EXPECT_EQ(ended.err, "");
  EXPECT_THAT(expect_exit(2, trainer({"mos.toml", "run.dir=straight", "train.steps=40"})).err,
              HasSubstr("train.steps was 50, now 40"));
  fs::remove_all(*this / "straight/checkpoints");
  EXPECT_EQ(expect_done(trainer({"mos.toml", "run.dir=straight"})).out, last);
}

TEST_F(Resume, NeverTakesTheNextFreeFolder) {
  for (int i = 0; i < 3; ++i) expect_done(trainer({"mos.toml", "run.dir=straight", "run.resume=never"}));
  for (const char* run : {"straight-2", "straight-3"}) expect_same_run(run);
  EXPECT_FALSE(fs::exists(*this / "straight-4"));
}

TEST_F(Resume, AFileStartsFromThatCheckpoint) {
  train_straight("mos");
  stopped_run();
  const test::Ended ended =
      expect_done(trainer({"mos.toml", "run.dir=run", "run.resume=run/checkpoints/step-00000020.h5"}));
  EXPECT_THAT(ended.out, HasSubstr("going on from step 20 (step-00000020.h5)\n"));
  EXPECT_EQ(saved_bytes("run-2"), saved_bytes("straight"));
  EXPECT_EQ(losses("run-2").size(), 30u);
  const test::Ended missing =
      expect_exit(2, trainer({"mos.toml", "run.dir=run", "run.resume=run/checkpoints/step-00000021.h5"}));
  EXPECT_THAT(missing.err, HasSubstr("command line: run.resume \"run/checkpoints/step-00000021.h5\" does not exist\n"));
}

TEST_F(Resume, AFolderInUseIsRefused) {
  test::Process first(trainer({"mos.toml", "train.batch=1000000", "run.dir=run"}));
  ASSERT_TRUE(test::wait_until([&] { return fs::exists(*this / "run/metrics.jsonl"); }));
  const test::Ended second = expect_exit(2, trainer({"mos.toml", "train.batch=1000000", "run.dir=run"}));
  const std::string fault = "run: another process is using this run folder";
  EXPECT_EQ(second.err, fault + ": waiting up to 5 s for it to end\n" + fault +
                            "\n  wait for it to end, or set run.dir to another folder\n");
}

TEST_F(Resume, TheResolvedRecipeRepeatsTheRun) {
  train_straight("mos", {"optimizer.schedule=cosine", "optimizer.warmup_steps=3", "train.seed=9"});
  fs::create_directories(*this / "elsewhere");
  auto command = trainer({(*this / "straight/recipe.toml").string(), "run.dir=" + (*this / "run").string()});
  command.folder = *this / "elsewhere";
  expect_done(command);
  expect_same_run("run");
  EXPECT_EQ(test::read_file(*this / "run/recipe.toml"), test::read_file(*this / "straight/recipe.toml"));
}

TEST_F(Resume, KeepsTheBestCheckpoint) {
  // Eight documents are soon known by heart, to the loss of others.
  const Words words = {"full.toml",         "run.dir=run",          "data.max_documents=8", "train.batch=4",
                       "optimizer.lr=0.01", "checkpoint.best=true", "checkpoint.keep=1",    "evaluate.every=10"};
  expect_done(trainer(words));
  const auto evaluated = losses("run", "eval");
  const auto best = std::min_element(evaluated.begin() + 1, evaluated.end()) - evaluated.begin();
  ASSERT_LT(best, 5);
  EXPECT_EQ(checkpoints("run"), (std::vector<std::string>{"step-00000050.h5"}));
  Words from_best = words;
  from_best.push_back("run.resume=run/checkpoints/best.h5");
  const test::Ended again = expect_done(trainer(from_best));
  EXPECT_THAT(again.out, HasSubstr("going on from step " + std::to_string(10 * best) + " (best.h5)\n"));
  EXPECT_EQ(saved_bytes("run-2"), saved_bytes("run"));
}

}  // namespace
}  // namespace tessera
