// What was trained comes out first: a failure behind it says what is kept, and the hint can be followed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

class KeptResults : public test::Workbench {
 protected:
  /// The trainer where no file may be longer.
  test::Command limited(int kilobytes, const Words& words) const {
    test::Command command = trainer(words);
    command.arguments.insert(command.arguments.begin(),
                             {"bash", "-c", "ulimit -f " + std::to_string(kilobytes) + "; exec \"$@\"", "bash"});
    return command;
  }
};

TEST_F(KeptResults, AnAdapterOrAPoolIsWholeWhereTheMergedModelFails) {
  for (const auto& [recipe, name, verb] :
       {std::tuple{"mos", "adapter", "adapter is"}, {"rps", "sharing", "shared weights are"}}) {
    const Words words = {std::string(recipe) + ".toml", "train.steps=3", "optimizer.name=sgd", "optimizer.momentum=0",
                         "export.merged=true"};
    for (const char* left : {"straight", "run"}) fs::remove_all(*this / left);
    expect_done(trainer(joined(words, {"run.dir=straight"})));
    const test::Ended failed = expect_exit(2, limited(100, joined(words, {"run.dir=run"})));
    EXPECT_THAT(failed.err, AllOf(HasSubstr("run/model/model.safetensors: cannot be written: File too large\n"),
                                  HasSubstr("\n  the trained " + std::string(verb) + " whole in \"run/" + name +
                                            "\": job=export run.dir=run writes the rest\n")));
    EXPECT_THAT(temporaries("run"), IsEmpty());
    expect_done(trainer(joined(words, {"job=export", "run.dir=run"})));
    for (const std::string file : {"model/model.safetensors", "model/config.json"})
      EXPECT_EQ(test::read_file(*this / "run" / file), test::read_file(*this / "straight" / file)) << recipe;
    EXPECT_EQ(saved_bytes("run"), saved_bytes("straight"));
    expect_done(trainer(joined(words, {"run.dir=run"})));  // or the same command
    EXPECT_EQ(timeless_metrics("run"), timeless_metrics("straight"));
  }
}

TEST_F(KeptResults, AnAdapterIsWholeWhereAnotherDtypeCannotHoldTheMergedWeights) {
  expect_done(trainer({"full.toml", "train.steps=2", "run.dir=dense"}));
  const Words words = {"lora.toml",         "model.path=dense/model", "model.init=pretrained", "train.steps=2",
                       "adapter.alpha=1e9", "export.merged=true",     "adapter.dropout=0",     "run.dir=run"};
  const test::Ended failed = expect_exit(2, trainer(joined(words, {"model.dtype=f16"})));
  EXPECT_THAT(failed.err, AllOf(HasSubstr("f16 ends at 65504: set model.dtype = \"bf16\" or \"f32\"\n"),
                                HasSubstr("  the trained adapter is whole in \"run/adapter")));
  expect_done(trainer(joined(words, {"job=export", "model.dtype=f32"})));
  EXPECT_TRUE(fs::exists(*this / "run/model/model.safetensors"));
}

TEST_F(KeptResults, TheCheckpointIsWholeWhereAnotherDtypeCannotHoldTheTrainedWeights) {
  expect_done(trainer({"full.toml", "train.steps=2", "run.dir=dense"}));
  const Words words = {"full.toml",     "model.path=dense/model", "model.init=pretrained",
                       "train.steps=1", "optimizer.lr=70000",     "optimizer.schedule=constant"};
  const test::Ended failed = expect_exit(2, trainer(joined(words, {"model.dtype=f16", "run.dir=run"})));
  const std::string file = "run/checkpoints/step-00000001.h5";
  EXPECT_THAT(failed.err, HasSubstr("f16 ends at 65504"));
  EXPECT_THAT(failed.err, HasSubstr("  the trained weights are whole in \"" + file +
                                    "\": the same command goes on, or job=export run.resume=" + file +
                                    " run.dir=FOLDER writes them, with another model.dtype as well\n"));
  expect_done(trainer(joined(words, {"job=export", "model.dtype=f32", "run.resume=" + file, "run.dir=FOLDER"})));
  expect_done(trainer(joined(words, {"run.dir=straight"})));
  EXPECT_EQ(test::read_file(*this / "FOLDER/model/model.safetensors"), saved_bytes("straight"));
}

TEST_F(KeptResults, AreWholeWhereTheReportFailsAndTheSameCommandWritesIt) {
  const Words words = {"lora.toml", "train.steps=60", "train.batch=2", "export.peft=true", "run.dir=run"};
  test::Process process(trainer(words));
  wait_for_lines("run", 2);  // what stands in the way at the start is told at the start
  fs::create_directories(*this / "run/report.html/taken");
  const test::Ended failed = process.wait();
  EXPECT_EQ(failed.exit_code, 2);
  EXPECT_THAT(
      failed.err,
      AllOf(HasSubstr("run/report.html: cannot be written: Is a directory\n"),
            HasSubstr("\n  the results are whole in \"run/adapter\", \"run/peft\"; the same command goes on\n")));
  EXPECT_THAT(temporaries("run"), IsEmpty());
  const std::string adapter = saved_bytes("run");
  const auto told = timeless_metrics("run");
  EXPECT_THAT(told.back(), HasSubstr("\"done\""));
  expect_done(trainer({"lora.toml", "job=evaluate", "run.dir=run"}));
  fs::remove_all(*this / "run/report.html");
  expect_done(trainer(words));
  EXPECT_THAT(test::read_file(*this / "run/report.html"), HasSubstr("finished"));
  EXPECT_EQ(saved_bytes("run"), adapter);
  EXPECT_EQ(timeless_metrics("run"), told);
}

}  // namespace
}  // namespace tessera
