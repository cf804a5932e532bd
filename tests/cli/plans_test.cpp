// Each job has a plan of its own, which --check prints, and is refused when there is less memory;
// the hint names keys of that job.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "core/out_of_memory.h"
#include "core/tensor.h"
#include "support/peak_memory.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

class Plans : public test::Workbench {
 protected:
  int64_t part(const Words& words, const char* name) { return plan(words).at("bytes").at(name).as_integer(); }

  /// The trainer started by a line of the shell, in which "$0" "$@" is the command.
  test::Command shell(const std::string& line, const Words& words) {
    test::Command command = trainer(words);
    command.arguments.insert(command.arguments.begin(), {"sh", "-c", line});
    return command;
  }
  test::Command with_address_space(int64_t megabytes, const Words& words) {
    return shell("ulimit -v " + std::to_string(megabytes * 1000) + " && exec \"$0\" \"$@\"", words);
  }
};

TEST_F(Plans, EveryJobOfEveryRecipeHasOne) {
  for (const char* recipe : {"full.toml", "lora.toml", "mos.toml", "rps.toml", "spsa.toml"})
    for (const char* job : {"train", "prepare", "evaluate", "generate", "export", "replay"}) {
      SCOPED_TRACE(std::string(recipe) + " " + job);
      const Json found = plan({recipe, std::string("job=") + job});
      EXPECT_EQ(found.at("wire_bytes_per_step").as_integer() > 0, std::string(job) == "train");
      EXPECT_EQ(found.at("bytes_per_rank").as_integer() > 0, std::string(job) != "prepare");
      EXPECT_EQ(found.at("parameters").at("virtual").as_integer() > 0, std::string(job) != "prepare");
    }
  expect_done(trainer({"rps.toml", "adapter.method=mos", "job=evaluate", "--check"}));
  expect_done(trainer({"spsa.toml", "job=evaluate", "spsa.perturb=layers", "--check"}));
  EXPECT_FALSE(fs::exists(*this / "runs"));
}

TEST_F(Plans, OnlyTrainingHasGradientsAndAnOptimizer) {
  EXPECT_GT(part({"full.toml"}, "optimizer"), 0);
  for (const char* job : {"job=evaluate", "job=generate", "job=export"}) {
    EXPECT_EQ(part({"full.toml", job}, "optimizer"), 0) << job;
    EXPECT_LT(part({"full.toml", job}, "weights_and_gradients"), part({"full.toml"}, "weights_and_gradients")) << job;
  }
  EXPECT_LT(part({"full.toml", "job=evaluate"}, "activations"), part({"full.toml"}, "activations"));
}

TEST_F(Plans, OfGenerationGrowWithTheCache) {
  const auto activations = [&](int tokens, int batch) {
    return part({"full.toml", "job=generate", "generate.max_new_tokens=" + std::to_string(tokens),
                 "generate.batch=" + std::to_string(batch)},
                "activations");
  };
  constexpr int64_t kCache = 2 * 2 * 16 * 4;  // keys and values of two layers, two heads of eight numbers, f32
  // Prompts are admitted up to generate.high_water of the pages; the last page of each sequence is a whole one.
  const auto expect_growth = [&](int batch) {
    const double needed = batch * 10'000 * kCache / 0.95;
    EXPECT_NEAR(static_cast<double>(activations(20'000, batch) - activations(10'000, batch)), needed, 16 * kCache);
  };
  expect_growth(4);
  expect_growth(8);
  const Words tables = {"full.toml", "job=generate", "generate.max_new_tokens=500000"};
  EXPECT_GT(part(tables, "tables"), 500'000 * 8 * 4);  // a cosine and a sine for half of a head's numbers
}

TEST_F(Plans, SayWhatIsMissingAndRefuseWhatDoesNotFit) {
  const Words words = {"lora.toml", "job=generate", "run.dir=run", "--check"};
  EXPECT_THAT(expect_done(trainer(words)).out,
              AllOf(HasSubstr("note: as things stand the job would end: adapter.load is not set and "),
                    HasSubstr("run\" holds no trained adapter\n"), EndsWith("the recipe is in order\n")));
  EXPECT_THAT(expect_done(trainer({"rps.toml", "job=evaluate", "--check"})).out,
              HasSubstr("note: as things stand the job would end with: rps.toml"));
  expect_done(trainer({"lora.toml", "train.steps=1", "run.dir=run"}));
  EXPECT_THAT(expect_done(trainer(words)).out, Not(HasSubstr("note: ")));
  EXPECT_THAT(expect_exit(2, trainer({"lora.toml", "adapter.rank=5", "job=generate", "run.dir=run", "--check"})).err,
              HasSubstr("rank"));
}

TEST_F(Plans, AboveALimitOfTheProcessAreRefusedWithKeysOfTheJob) {
  const Words generate = {"full.toml", "job=generate", "generate.max_new_tokens=1048576", "run.dir=run"};
  for (const bool check : {true, false}) {
    Words words = generate;
    if (check) words.push_back("--check");
    const std::string text = expect_exit(2, with_address_space(250, words)).err;
    EXPECT_THAT(text,
                AllOf(HasSubstr("job: this run needs "), HasSubstr("(ulimit -v) leaves"),
                      HasSubstr("lower generate.max_new_tokens or generate.memory_gib"), Not(HasSubstr("train."))));
  }
  EXPECT_FALSE(fs::exists(*this / "run"));
  const Words lower = {"generate.max_new_tokens=4", "generate.batch=1", "generate.limit=1"};  // as the hint says
  Words followed = generate;
  followed.insert(followed.end(), lower.begin(), lower.end());
  expect_done(with_address_space(2000, followed));

  const auto told = [&](const Words& words) { return expect_exit(2, with_address_space(500, words), 60).err; };
  EXPECT_THAT(told({"full.toml", "train.sequence_length=1000000", "--check"}),
              AllOf(HasSubstr("lower train.sequence_length, or set train.checkpoint_activations = true"),
                    Not(HasSubstr("generate."))));
  EXPECT_THAT(told({"spsa.toml", "train.sequence_length=1000000", "--check"}),
              AllOf(HasSubstr("spsa.side_by_side"), Not(HasSubstr("checkpoint_activations"))));
  EXPECT_THAT(told({"full.toml", "job=evaluate", "train.sequence_length=1000000"}),
              AllOf(HasSubstr("lower train.sequence_length"), Not(HasSubstr("checkpoint_activations"))));
}

/// A control group with a limit of memory, made and removed again.
class ControlGroup {
 public:
  explicit ControlGroup(int64_t bytes) {
    const std::string name = "tessera_test_" + std::to_string(getpid());
    for (const auto& [top, file] : {std::pair{fs::path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"},
                                    std::pair{fs::path("/sys/fs/cgroup"), "memory.max"}}) {
      std::error_code failure;
      folder_ = top / name;
      if (!fs::exists(top) || !fs::create_directory(folder_, failure)) continue;
      if (fs::exists(folder_ / file) && (std::ofstream(folder_ / file) << bytes << std::flush)) return;
      fs::remove(folder_, failure);
    }
    folder_.clear();
  }
  ~ControlGroup() {
    if (!folder_.empty()) rmdir(folder_.c_str());
  }
  ControlGroup(const ControlGroup&) = delete;
  const fs::path& folder() const { return folder_; }

 private:
  fs::path folder_;
};

TEST_F(Plans, AboveTheLimitOfAControlGroupAreRefused) {
  const ControlGroup group(100'000'000);
  if (group.folder().empty()) GTEST_SKIP() << "no control group can be made here";
  const std::string enter = "echo $$ > " + (group.folder() / "cgroup.procs").string() + " && exec \"$0\" \"$@\"";
  for (const char* check : {"--check", "--quiet"}) {
    const Words words = {"full.toml", "train.sequence_length=60000", "train.steps=1", "run.dir=run", check};
    const std::string text = expect_exit(2, shell(enter, words), 60).err;
    EXPECT_THAT(text, AllOf(HasSubstr("on this machine (1 ranks), and the control group /"),
                            HasSubstr(group.folder().filename().string() + " allows 100.0 MB\n  lower train.")));
  }
  EXPECT_FALSE(fs::exists(*this / "run"));
  expect_done(shell(enter, {"full.toml", "train.steps=1", "run.dir=run"}));
}

TEST_F(Plans, OfAReplayFollowTheLog) {
  const Words words = {"spsa.toml", "train.steps=2", "run.dir=run"};
  const auto with = [&](const Words& more) {
    Words all = words;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const auto optimizer = [&](const Words& more) { return plan(with(more)).at("bytes").at("optimizer").as_integer(); };
  const int64_t adamw = optimizer({"optimizer.name=adamw"}), sgd = optimizer({"optimizer.name=sgd"});
  EXPECT_NE(adamw, sgd);
  expect_done(trainer(with({"optimizer.name=adamw"})));
  EXPECT_EQ(optimizer({"job=replay", "optimizer.name=sgd"}), adamw);
}

TEST_F(Plans, OfALargeModelTakeNothingOfItsSize) {
  replace("base/config.json", "\"hidden_size\": 32", "\"hidden_size\": 1024");
  replace("base/config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 40");
  for (const Words& words :
       {Words{"full.toml"}, Words{"lora.toml"}, Words{"rps.toml", "sharing.mapper=hashed"},
        Words{"full.toml", "sharing.method=magnitude"},
        Words{"full.toml", "train.estimator=spsa", "optimizer.name=sgd"}, Words{"full.toml", "job=evaluate"},
        Words{"full.toml", "job=export", "model.dtype=bf16"}}) {
    SCOPED_TRACE(words.back());
    Words check = words;
    check.insert(check.end(), {"--check", "--json"});
    const test::Peak peak = test::peak_of(trainer(check), 60);
    ASSERT_EQ(peak.ended.exit_code, 0) << peak.ended.err;
    EXPECT_LT(peak.bytes, 20'000'000);
    EXPECT_GT(Json::parse(peak.ended.out, "plan").at("bytes_per_rank").as_integer(), 20'000'000);
  }
}

TEST_F(Plans, CountLongData) {
  const std::string records = test::read_file(*this / "train.jsonl");
  std::ofstream file(*this / "long.jsonl", std::ios::binary);
  for (int i = 0; i < 400; ++i) file << records;
  file.close();
  const Words words = {"full.toml", "data.train=long.jsonl", "train.steps=1"};
  const int64_t planned = part(words, "data");
  EXPECT_EQ(part({"full.toml"}, "data"), 0);  // small
  EXPECT_EQ(part({"full.toml", "data.train=long.jsonl", "job=prepare"}, "data"), planned);
  EXPECT_EQ(part({"full.toml", "data.train=long.jsonl", "job=evaluate"}, "data"), 0);
  // Of each record: BOS, prompt, completion and EOS at five bytes a token, its place in the file,
  // and its place in a row, twice.
  const std::string told = expect_done(trainer({"full.toml", "data.train=long.jsonl", "job=prepare"})).out;
  const size_t at = told.find("documents, ");
  ASSERT_NE(at, std::string::npos) << told;
  const auto tokens = std::stoll(told.substr(at + 11));
  EXPECT_NEAR(static_cast<double>(planned), static_cast<double>(5 * tokens + 120'000 * 56),
              0.02 * static_cast<double>(planned));
}

TEST(OutOfMemory, NamesNoKeysItself) {
  try {
    const Tensor tensor({int64_t{1} << 50}, DType::f32);
    FAIL() << "4 PB were there";
  } catch (const OutOfMemory& error) {
    EXPECT_STREQ(error.what(), "out of memory: 4294967296 MB could not be reserved");
  }
}

}  // namespace
}  // namespace tessera
