// Numbers that a recipe may give and arithmetic cannot hold, rates that teach nothing, and results that are not finite.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

class Numbers : public test::Workbench {
 protected:
  std::string checked(const std::string& recipe, const Words& overrides, int code) {
    const test::Ended ended = expect_exit(code, trainer(joined({recipe, "--check"}, overrides)));
    return ended.out + ended.err;
  }
};

TEST_F(Numbers, ThatF32CannotHoldAreRefused) {
  for (const char* value : {"optimizer.eps=1e-46", "optimizer.eps=1e300", "optimizer.lr=1e39", "optimizer.lr=1e-46",
                            "optimizer.weight_decay=1e39", "optimizer.beta1=1e-50", "adapter.alpha=1e-50",
                            "adapter.alpha=1e40", "train.clip=1e-60"}) {
    const std::string key = std::string(value).substr(0, std::string(value).find('='));
    EXPECT_THAT(checked("lora.toml", {value}, 2), AllOf(HasSubstr(key + " is "), HasSubstr("beyond the range of f32"),
                                                        HasSubstr("from 1.1754944e-38 to 3.4028235e+38")));
  }
  for (const char* value : {"optimizer.eps=1.2e-38", "optimizer.lr=0", "optimizer.lr=3e38", "optimizer.weight_decay=0",
                            "train.clip=0", "optimizer.beta1=0", "adapter.alpha=1e30"})
    checked("lora.toml", {value}, 0);
}

TEST_F(Numbers, TheLargestIsNamed) {
  EXPECT_THAT(
      checked("lora.toml", {"train.seed=9223372036854775808"}, 2),
      HasSubstr("train.seed is \"9223372036854775808\", expected a whole number\n  allowed: at least 0, at most "
                "9223372036854775807\n"));
  EXPECT_THAT(checked("lora.toml", {"optimizer.lr=1e400"}, 2), HasSubstr("at most 1.7976931348623157e+308\n"));
  std::string text = test::read_file(*this / "lora.toml");
  text.replace(text.find("batch = 24"), 10, "seed = 9223372036854775808");
  test::write_file(*this / "seed.toml", text);
  EXPECT_THAT(checked("seed.toml", {}, 2), HasSubstr("the largest whole number is 9223372036854775807\n"));
  checked("lora.toml", {"train.seed=9223372036854775807"}, 0);
  std::string epochs = test::read_file(*this / "lora.toml");
  epochs.replace(epochs.find("steps = 50"), 10, "epochs = 1e300");
  test::write_file(*this / "epochs.toml", epochs);
  EXPECT_THAT(checked("epochs.toml", {}, 2), HasSubstr("\n  allowed: more than 0, at most 1000000000\n"));
}

TEST_F(Numbers, RatesAreToldBeforeARun) {
  EXPECT_THAT(checked("lora.toml", {"train.steps=5", "optimizer.lr=1e-3", "optimizer.final_ratio=0.5"}, 0),
              HasSubstr("learning rate    first 0.001, highest 0.001, last 0.0006\n"));
  EXPECT_THAT(checked("lora.toml", {"train.steps=50", "optimizer.lr=1e-3", "optimizer.warmup_ratio=0.28"}, 0),
              HasSubstr("learning rate    first 0, highest 0.001, last 2.78e-05\n"));
}

TEST_F(Numbers, ARunThatLearnsNothingIsTold) {
  const Words one = {"train.steps=1", "optimizer.warmup_steps=1"},
              long_one = {"train.steps=4", "optimizer.warmup_steps=9"};
  const std::string zero = "note: the only step has a learning rate of 0",
                    never = "note: warm-up takes 9 steps, the run has 4: the learning rate ends at ";
  EXPECT_THAT(checked("lora.toml", one, 0), HasSubstr(zero));
  EXPECT_THAT(checked("lora.toml", long_one, 0), HasSubstr(never));
  EXPECT_THAT(checked("lora.toml", {"train.steps=4", "optimizer.warmup_steps=3"}, 0), Not(HasSubstr("note:")));
  const auto run = [&](const Words& words, const std::string& folder) {
    return expect_done(trainer(joined({"lora.toml", "run.dir=" + folder}, words))).out;
  };
  EXPECT_THAT(run(one, "one"), HasSubstr(zero));
  EXPECT_THAT(run(long_one, "four"), HasSubstr(never));
}

TEST_F(Numbers, VotesThatAreAll0AreTold) {
  const std::string text = expect_done(trainer({"spsa.toml", "spsa.eps=1e-20", "train.steps=40", "run.dir=run"})).out;
  EXPECT_EQ(test::occurrences(
                text, "step 16: all votes of the last 16 rounds are 0, nothing is learned: raise spsa.eps (1e-20)"),
            1)
      << text;
  EXPECT_EQ(test::occurrences(text, "rounds are 0"), 1);
}

/// One step at a rate that leaves f32, without held-out data that would show it.
class NotFinite : public Numbers, public testing::WithParamInterface<const char*> {};

TEST_P(NotFinite, IsNeverToldAsDone) {
  const std::string recipe = GetParam();
  // AdamW moves each number by the rate; weight decay multiplies both.
  Words words = {recipe + ".toml", "run.dir=run", "train.steps=1", "data.eval=", "optimizer.schedule=constant"};
  words.insert(words.end(), {"optimizer.lr=3e38", "optimizer.weight_decay=3e38"});
  const test::Ended ended = expect_exit(2, trainer(words));
  EXPECT_THAT(ended.err,
              ContainsRegex("step 1: the checkpoint is not saved: element [0-9]+ of \".+\" is -?(nan|inf)\n"));
  EXPECT_THAT(checkpoints("run"), testing::IsEmpty());
  for (const char* folder : {"adapter", "sharing", "model", "peft"}) EXPECT_FALSE(fs::exists(*this / "run" / folder));
  EXPECT_THAT(test::read_file(*this / "run/metrics.jsonl"), Not(HasSubstr("\"done\"")));
}

INSTANTIATE_TEST_SUITE_P(Training, NotFinite, testing::Values("full", "lora", "mos", "rps"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(Numbers, AnSpsaRunWhoseLossesLeftTheFiniteOnesIsNotDone) {
  const Words words = {"spsa.toml", "run.dir=run", "train.steps=3", "data.eval=", "optimizer.lr=1e20"};
  for (int time = 0; time < 2; ++time)  // the same command again finds the same
    EXPECT_THAT(expect_exit(2, trainer(words)).err,
                HasSubstr("step 3: no vote of the last round was valid: the losses are not finite\n"));
  EXPECT_FALSE(fs::exists(*this / "run/adapter"));
}

}  // namespace
}  // namespace tessera
