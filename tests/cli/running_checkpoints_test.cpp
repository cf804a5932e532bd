// Jobs that work with a checkpoint of a training that goes on, and removes it meanwhile.

#include <gmock/gmock.h>

#include <csignal>

#include "core/error.h"
#include "io/files.h"
#include "support/random_seed.h"
#include "support/workbench.h"
#include "train/checkpoint.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

class RunningCheckpoints : public test::Workbench {
 protected:
  fs::path newest(const std::string& run) const {
    const auto steps = checkpoint_steps(*this / run / "checkpoints");
    return steps.empty() ? fs::path() : checkpoint_file(*this / run / "checkpoints", steps.front());
  }
};

TEST_F(RunningCheckpoints, AreWholeOrRefusedNeverAMixture) {
  const Words train = {"lora.toml", "train.steps=100000", "checkpoint.every=40", "checkpoint.keep=1"};
  test::Process training(trainer(joined(train, {"run.dir=run"})));
  ASSERT_TRUE(test::wait_until([&] { return !newest("run").empty(); }, 60));
  const int reads = test::tests_are_long() ? 200 : 12;
  int whole = 0;
  for (int read = 0; read < reads; ++read) {
    const fs::path file = newest("run");
    const test::Ended ended =
        run(trainer({"lora.toml", "job=generate", "generate.prompts=[\"copy da di =\"]", "generate.max_new_tokens=3",
                     "run.dir=asked", "run.resume=" + file.string()}));
    ASSERT_TRUE(ended.exit_code == 0 || ended.exit_code == 2) << ended.err;
    if (ended.exit_code == 0) {
      ++whole;
      EXPECT_THAT(ended.err, testing::HasSubstr("the weights after step "));
    } else {
      EXPECT_THAT(ended.err, testing::HasSubstr(file.filename().string())) << "it is the named file that is gone";
      EXPECT_THAT(ended.err, testing::Not(testing::HasSubstr("fault of trainer")));
    }
  }
  // The newest, by the folder: looked for again where it is gone by the time it is opened.
  for (int read = 0; read < reads; ++read)
    EXPECT_THAT(expect_done(trainer({"lora.toml", "job=generate", "generate.prompts=[\"copy da di =\"]",
                                     "generate.max_new_tokens=3", "run.dir=asked", "run.resume=run"}))
                    .err,
                testing::HasSubstr("the weights after step "));
  training.send(SIGTERM);
  EXPECT_EQ(training.wait(60).exit_code, 130);
  std::printf("%d of %d were read\n", whole, reads);
  EXPECT_GT(whole, 0);
  // What is there now is read.
  expect_done(trainer({"lora.toml", "job=generate", "generate.prompts=[\"copy da di =\"]", "generate.max_new_tokens=3",
                       "run.dir=asked", "run.resume=" + newest("run").string()}));
}

// The file that was opened is the file that is read, whatever has its name by then.
TEST_F(RunningCheckpoints, AreReadFromTheFileThatWasOpened) {
  expect_done(trainer({"lora.toml", "run.dir=run", "train.steps=3", "checkpoint.every=1", "checkpoint.keep=3"}));
  const auto file = [&](int64_t step) { return checkpoint_file(*this / "run/checkpoints", step); };
  const OpenedCheckpoint opened(file(2));
  fs::rename(file(3), file(2));
  EXPECT_EQ(opened.meta().step, 2);
  EXPECT_EQ(OpenedCheckpoint(file(2)).meta().step, 3);
  fs::remove(file(2));
  FlatParams none;
  opened.load_values(none);
  EXPECT_THROW(OpenedCheckpoint::chosen(file(2)), UserError);
}

}  // namespace
}  // namespace tessera
