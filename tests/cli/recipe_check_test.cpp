// What --check says of a recipe alone, before any model or data is read; and files that are none.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class RecipeCheck : public test::Workbench {
 protected:
  /// What a recipe is refused with. A program that waits for a pipe fails here, too.
  std::string fault(Words words) const {
    const test::Ended ended = expect_exit(2, trainer(std::move(words)), 30);
    EXPECT_THAT(ended.err, Not(HasSubstr("fault of trainer")));
    return ended.err;
  }
  std::string check_fault(Words words) const {
    words.push_back("--check");
    return fault(std::move(words));
  }
  /// What is said beside the plan.
  std::string told(Words words) const {
    words.push_back("--check");
    return expect_done(trainer(std::move(words))).err;
  }
  void write(const std::string& name, const std::string& text) const { test::write_file(*this / name, text); }
  std::string text(const std::string& name) const { return test::read_file(*this / name); }
};

TEST_F(RecipeCheck, AWholeSectionMayBeOverridden) {
  expect_done(trainer({"full.toml", "train={steps=3, batch=4, sequence_length=64}", "run.dir=short"}));
  EXPECT_EQ(losses("short").size(), 3u);
  EXPECT_THAT(check_fault({"full.toml", "job={a=1}"}), StartsWith("command line: job is "));
}

TEST_F(RecipeCheck, OneFaultIsToldOnce) {
  const auto count = [&](const Words& words) { return test::occurrences("\n" + check_fault(words), "\n" + words[0]); };
  const auto typed = [&](const Words& words) { return test::occurrences(check_fault(words), "command line: "); };
  for (const char* job : {"job={a=1}", "job=trian", "job=3"}) {
    EXPECT_EQ(typed({"full.toml", job}), 1) << check_fault({"full.toml", job});
    EXPECT_THAT(check_fault({"full.toml", job}), Not(HasSubstr("full.toml")));
  }
  EXPECT_EQ(typed({"full.toml", "train=3"}), 1);
  for (const char* section : {"train", "data", "model"}) {
    std::string recipe = text("full.toml");
    const std::string header = std::string("[") + section + "]";
    recipe.replace(recipe.find(header), header.size(), "[" + header + "]");
    write("doubled.toml", recipe);
    EXPECT_THAT(check_fault({"doubled.toml"}), HasSubstr("begins one of several tables, and " + std::string(section)));
    EXPECT_EQ(count({"doubled.toml"}), 1) << check_fault({"doubled.toml"});
  }
}

TEST_F(RecipeCheck, PatternsAreCheckedAtTheirLine) {
  EXPECT_THAT(check_fault({"full.toml", R"(train.freeze=["mlp["])"}),
              StartsWith("command line: train.freeze: \"mlp[\" is no regular expression: "));
  EXPECT_THAT(check_fault({"rps.toml", R"(sharing.shared=["linears", "("])"}),
              HasSubstr("sharing.shared: \"(\" is no regular expression: missing closing parenthesis at byte 1"));
}

TEST_F(RecipeCheck, PatternsThatNeverEndOrAreTooLargeAreRefused) {
  for (const std::string& pattern : {std::string(100'000, '.'), std::string(100'000, '('), std::string("(.*)*z")}) {
    std::string recipe = text("full.toml");
    recipe.insert(recipe.find("[train]\n") + 8, "freeze = [\"" + pattern + "\"]\n");
    write("pattern.toml", recipe);
    EXPECT_THAT(check_fault({"pattern.toml"}), AllOf(HasSubstr("train.freeze"), testing::SizeIs(testing::Lt(500u))));
    std::string shared = text("rps.toml");
    shared.replace(shared.find("\"linears\""), 9, "\"" + pattern + "\"");
    write("pattern.toml", shared);
    EXPECT_THAT(check_fault({"pattern.toml"}), HasSubstr("sharing.shared"));
  }
  EXPECT_THAT(check_fault({"full.toml", R"(train.freeze=["(.|.)*[!?]"])"}),
              HasSubstr("train.freeze: the search for \"(.|.)*[!?]\" in \"model."));
}

TEST_F(RecipeCheck, TemplatesAreCheckedAtTheirLine) {
  std::string recipe = text("lora.toml");
  recipe.insert(recipe.find("[train]\n"), "prompt_template = \"{prompt\"\ncompletion_template = \"}\"\n");
  write("bad.toml", recipe);
  EXPECT_THAT(check_fault({"bad.toml"}),
              AllOf(ContainsRegex("bad.toml:[0-9]+:1: data.prompt_template: \"[{]\" at byte 1 is not closed\n"),
                    ContainsRegex("bad.toml:[0-9]+:1: data.completion_template: \"[}]\" at byte 1 closes nothing\n")));
}

TEST_F(RecipeCheck, JobsThatLackTheirInputAreRefused) {
  EXPECT_THAT(check_fault({"lora.toml", "job=evaluate", "data.eval="}), HasSubstr("data.eval is not set"));
  EXPECT_THAT(check_fault({"lora.toml", "job=evaluate", "data.eval=", "data.eval_fraction=0.1", "data.train="}),
              HasSubstr("data.train is not set"));
  EXPECT_THAT(check_fault({"lora.toml", "job=prepare", "data.train="}), HasSubstr("data.train is not set"));
  EXPECT_THAT(check_fault({"lora.toml", "job=generate", "data.eval="}), HasSubstr("there is nothing to continue"));
  EXPECT_THAT(check_fault({"lora.toml", "job=generate", "generate.prompts_file=absent.txt"}),
              HasSubstr("absent.txt\" does not exist"));
  EXPECT_THAT(check_fault({"lora.toml", "data.train=base"}),
              AllOf(HasSubstr("data.train \""), HasSubstr("is a folder")));
  write("d.csv", "a,b\n");
  EXPECT_THAT(check_fault({"lora.toml", "data.eval=d.csv"}), HasSubstr(".csv files are not read"));
}

TEST_F(RecipeCheck, OptionsOfAMethodThatIsNotNamedAreRefused) {
  write("rank.toml", text("full.toml") + "[adapter]\nrank = 4\n");
  EXPECT_THAT(
      check_fault({"rank.toml"}),
      ContainsRegex("rank.toml:[0-9]+:1: adapter.rank is given, but adapter.method is not: all weights would be "
                    "trained\n  set adapter.method to \"lora\".* \"mos\".*, or to \"none\" if this is meant\n"));
  EXPECT_THAT(check_fault({"full.toml", "sharing.compression=4"}), HasSubstr("sharing.method is not"));
  EXPECT_THAT(told({"rank.toml", "adapter.method=none"}),
              HasSubstr("note: adapter.rank does nothing: adapter.method is \"none\"\n"));
  EXPECT_THAT(told({"rank.toml", "adapter.method=lora"}), Not(HasSubstr("note:")));
}

TEST_F(RecipeCheck, KeysThatNobodyReadsAreTold) {
  const auto expect = [&](Words words, const std::string& note) {
    EXPECT_THAT(told(std::move(words)), HasSubstr("note: " + note + "\n"));
  };
  expect({"lora.toml", "adapter.shards=2", "adapter.draw=tied"},
         "adapter.draw, adapter.shards do nothing: adapter.method is \"lora\"");
  expect({"lora.toml", "checkpoint.best=true", "data.eval=", "evaluate.every=5"},
         "checkpoint.best does nothing: there is no held-out data: data.eval and data.eval_fraction are not set");
  expect({"lora.toml", "spsa.probes=4", "spsa.eps=0.1"},
         "spsa.eps, spsa.probes do nothing: train.estimator is \"backprop\"");
  expect({"lora.toml", "optimizer.momentum=0.5"}, "optimizer.momentum does nothing: optimizer.name is \"adamw\"");
  expect({"lora.toml", "optimizer.name=sgd", "optimizer.beta1=0.5"},
         "optimizer.beta1 does nothing: optimizer.name is \"sgd\"");
  expect({"lora.toml", "optimizer.schedule=constant", "optimizer.final_ratio=0.1"},
         "optimizer.final_ratio does nothing: optimizer.schedule is \"constant\"");
  expect({"lora.toml", "optimizer.warmup_steps=3", "optimizer.warmup_ratio=0.1"},
         "optimizer.warmup_ratio does nothing: optimizer.warmup_steps is given, and goes before it");
  expect({"spsa.toml", "spsa.pool_size=9", "spsa.machines=2"},
         "spsa.pool_size does nothing: spsa.directions is \"independent\"");
  expect({"rps.toml", "sharing.tile_rows=4"},
         "sharing.tile_rows does nothing: sharing.layout is not \"tile\", nor sharing.mapper \"roast-tile\"");
  expect({"rps.toml", "sharing.method=depth", "sharing.compression=2"},
         "sharing.min_numel, sharing.shared do nothing: sharing.method is \"depth\"");
  expect({"full.toml", "export.peft=true"}, "export.peft does nothing: adapter.method is \"none\"");
  expect({"lora.toml", "data.eval_fraction=0.1"}, "data.eval_fraction does nothing: data.eval names the held-out data");
}

TEST_F(RecipeCheck, ANameOfAHubIsNoFolder) {
  EXPECT_THAT(check_fault({"full.toml", "model.path=org/name"}),
              AllOf(HasSubstr("does not exist\n"), HasSubstr("hf download org/name")));
  EXPECT_THAT(check_fault({"full.toml", "model.path=absent"}), HasSubstr("name a Hugging Face folder"));
}

TEST_F(RecipeCheck, RecipesThatAreInOrderAreNotTalkedAbout) {
  for (const char* recipe : {"full.toml", "lora.toml", "mos.toml", "rps.toml", "spsa.toml"}) {
    EXPECT_EQ(told({recipe}), "") << recipe;
    const std::string run = std::string("run-") + recipe;
    expect_done(trainer({recipe, "train.steps=1", "run.dir=" + run, "checkpoint.every=0"}));
    EXPECT_EQ(told({run + "/recipe.toml"}), "") << recipe;  // every default is spelled out
  }
}

TEST_F(RecipeCheck, WhatIsNoFileIsNamedAtOnce) {
  const auto pipe = [&](const std::string& name) {
    fs::remove_all(*this / name);
    ASSERT_EQ(::mkfifo((*this / name).c_str(), 0600), 0);
  };
  const fs::path world = test::source_dir() / "recipes/world";
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
    for (const bool folder : {false, true}) {
      fs::remove_all(*this / "model");
      fs::copy(world / "base", *this / "model", fs::copy_options::recursive);
      if (!fs::exists(*this / "model" / name)) fs::copy(world / "tokenizer" / name, *this / "model" / name);
      pipe(std::string("model/") + name);
      if (folder) {
        fs::remove(*this / "model" / name);
        fs::create_directory(*this / "model" / name);
      }
      EXPECT_THAT(fault({"lora.toml", "model.path=model", "model.init=pretrained", "model.tokenizer=model"}),
                  AllOf(HasSubstr(name), HasSubstr(folder ? "Is a directory" : "is a pipe and no file")));
    }
  }
  pipe("data.jsonl");
  EXPECT_THAT(fault({"lora.toml", "data.train=data.jsonl"}), HasSubstr("is a pipe or a device and no file"));
  EXPECT_THAT(fault({"lora.toml", "job=generate", "generate.prompts_file=data.jsonl"}), HasSubstr("is a pipe"));
  EXPECT_THAT(fault({"lora.toml", "data.train=/dev/zero"}), HasSubstr("is a pipe or a device and no file"));
  EXPECT_THAT(fault({"lora.toml", "run.resume=data.jsonl"}), HasSubstr("is a pipe and no file"));
  pipe("pipe.toml");
  EXPECT_THAT(fault({"pipe.toml"}), HasSubstr("this recipe is a pipe"));
  EXPECT_THAT(fault({"/dev/zero"}), HasSubstr("this recipe is a pipe or a device and no file"));
  for (const char* endless : {"/proc/kmsg", "/proc/kcore"}) {
    if (!fs::exists(endless)) continue;
    EXPECT_THAT(fault({endless}), HasSubstr("this recipe is made up by the kernel as it is read and no file"));
    EXPECT_THAT(fault({"lora.toml", std::string("data.train=") + endless}), HasSubstr("is made up by the kernel"));
  }
}

TEST_F(RecipeCheck, PointersOfGitLfsAreNamed) {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
  write("lfs.jsonl", pointer);
  write("lfs.txt", pointer);
  for (const char* file : {"lfs.jsonl", "lfs.txt"})
    EXPECT_THAT(fault({"lora.toml", std::string("data.train=") + file}), HasSubstr("is a git-lfs pointer"));
  write("lfs.toml", pointer);
  EXPECT_THAT(fault({"lfs.toml"}), StartsWith("lfs.toml: is a git-lfs pointer"));
  fs::create_directories(*this / "tokenizer");
  write("tokenizer/tokenizer.json", pointer);
  EXPECT_THAT(fault({"lora.toml", "model.tokenizer=tokenizer"}), HasSubstr("is a git-lfs pointer"));
}

TEST_F(RecipeCheck, JsonLinesUnderAnotherNameAreNotTrainedOnAsText) {
  for (const char* name : {"d.jsonl.txt", "d.jsonl.bak", "d"}) {
    write(name, text("train.jsonl"));
    EXPECT_THAT(fault({"lora.toml", std::string("data.train=") + name}),
                HasSubstr("holds JSON lines, and its name says that it is plain text"));
  }
  write("d.jsonlines", text("train.jsonl"));
  EXPECT_THAT(expect_done(trainer({"lora.toml", "job=prepare", "data.train=d.jsonlines"})).out, HasSubstr("train: "));
  write("pretty.txt", "{\n  \"text\": \"la le li\"\n}\n");
  for (int time = 0; time < 2; ++time)  // the second from the cache
    EXPECT_THAT(expect_done(trainer({"lora.toml", "job=prepare", "data.train=pretty.txt"})).out,
                HasSubstr("begins with a JSON object and is read as plain text"));
}

TEST_F(RecipeCheck, PathsThatAShellWouldExpandAreRefused) {
  EXPECT_THAT(check_fault({"lora.toml", "model.path=~/models/x"}),
              HasSubstr("model.path is \"~/models/x\": \"~\" and \"$\" are not expanded here"));
  EXPECT_THAT(check_fault({"lora.toml", "run.dir=$HOME/runs"}), HasSubstr("run.dir is \"$HOME/runs\""));
  EXPECT_FALSE(fs::exists(*this / "~"));
}

}  // namespace
}  // namespace tessera
