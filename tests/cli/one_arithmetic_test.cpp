// The same recipe has the same bits with other instructions, threads and micro-batches: whole runs, not kernels alone.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/cpu_targets.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class OneArithmetic : public test::Workbench {
 protected:
  /// What a run leaves of trained numbers, and its losses.
  std::string left_by(const std::string& method, const std::string& run, const Words& words) {
    expect_done(trainer(joined({method + ".toml", "run.dir=" + run, "train.steps=3"}, words)));
    const fs::path adapter = path() / run / "adapter" / (method + ".safetensors"),
                   model = path() / run / "model/model.safetensors";
    std::string text = test::read_file(fs::exists(adapter) ? adapter : model);
    for (const double loss : losses(run, "train")) text += fmt::format(" {:a}", loss);
    for (const double loss : losses(run, "eval")) text += fmt::format(" {:a}", loss);
    return text;
  }
};

TEST_F(OneArithmetic, HoldsForInstructionsThreadsAndMicroBatches) {
  const std::vector<std::string> all = test::cpu_targets();
  ASSERT_THAT(all, testing::Contains("scalar"));
  for (const std::string method : {"lora", "mos", "full"}) {
    const std::string want = left_by(method, method + "-best", {"run.threads=2"});
    for (const std::string& target : all)
      for (const char* threads : {"1", "3"})
        EXPECT_TRUE(left_by(method, method + "-" + target + "-" + threads,
                            {"run.target=" + target, std::string("run.threads=") + threads}) == want)
            << method << " with " << target << " and " << threads << " threads";
    if (method == "full") continue;  // a tied head is summed by the head and by the embedding in turn
    for (const char* rows : {"1", "3"})
      EXPECT_TRUE(left_by(method, method + "-micro-" + rows, {std::string("train.micro_batch=") + rows}) == want)
          << method << " with micro-batches of " << rows;
  }
}

TEST_F(OneArithmetic, ARunGoesOnWithOtherInstructions) {
  expect_done(trainer({"lora.toml", "run.dir=cut", "train.steps=2", "optimizer.schedule=constant"}));
  expect_done(trainer({"lora.toml", "run.dir=one", "train.steps=3", "optimizer.schedule=constant"}));
  expect_done(trainer({"lora.toml", "run.dir=cut", "train.steps=3", "optimizer.schedule=constant",
                       "run.target=" + test::cpu_targets().back(), "run.threads=1"}));
  EXPECT_TRUE(test::read_file(path() / "cut/adapter/lora.safetensors") ==
              test::read_file(path() / "one/adapter/lora.safetensors"));
}

TEST_F(OneArithmetic, InstructionsThatTheMachineLacksAreRefused) {
  std::string missing = "neon";
  for (const std::string& target : test::cpu_targets()) missing = target == "neon" ? "avx2" : missing;
  EXPECT_THAT(expect_exit(2, trainer({"lora.toml", "run.target=" + missing})).err,
              HasSubstr("does not have the instructions \"" + missing + "\"\n  it has "));
}

}  // namespace
}  // namespace tessera
