// What a run leaves behind is used: adapters, merged models, evaluations and continuations.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Adapters : public test::Workbench {
 protected:
  /// A base with weights on the disk: two steps of full training; recipes then read it.
  void make_base(const std::string& dtype) {
    expect_done(trainer({"full.toml", "run.dir=pretrain", "train.steps=20", "model.dtype=" + dtype}));
  }
  Words on_base(const Words& words, const std::string& method) const {
    return joined({method + ".toml", "model.path=pretrain/model", "model.init=pretrained"}, words);
  }
  double evaluate(const Words& words) {
    const test::Ended ended = expect_done(trainer(words));
    return Json::parse(ended.out.substr(ended.out.find('{')), "evaluate").at("loss").as_number();
  }
};

TEST_F(Adapters, GoOnFromTheSavedLoss) {
  make_base("f32");
  for (const char* method : {"lora", "mos"}) {
    const std::string run = std::string(method) + "-run", next = std::string(method) + "-next";
    expect_done(trainer(on_base({"run.dir=" + run}, method)));
    expect_done(trainer(on_base({"run.dir=" + next, "adapter.load=" + run + "/adapter", "train.steps=5"}, method)));
    const auto first = losses(run, "eval"), second = losses(next, "eval");
    EXPECT_LT(first.back(), first.front());
    EXPECT_EQ(second.front(), first.back());
    EXPECT_EQ(evaluate(on_base({"job=evaluate", "adapter.load=" + run + "/adapter"}, method)), first.back());
  }
}

TEST_F(Adapters, OfTheRunsFolderServeTheOtherJobsOfTheSameRecipe) {
  make_base("f32");
  expect_done(trainer(on_base({"run.dir=run"}, "mos")));
  EXPECT_EQ(evaluate(on_base({"job=evaluate", "run.dir=run"}, "mos")), losses("run", "eval").back());
  expect_done(trainer(on_base({"job=export", "run.dir=run", "export.merged=false", "export.peft=true"}, "mos")));
  EXPECT_TRUE(fs::exists(*this / "run/peft/adapter_config.json"));
  EXPECT_FALSE(fs::exists(*this / "run/model"));
}

TEST_F(Adapters, ThatWereNeverTrainedAreNotMeasuredInTheirName) {
  make_base("f32");
  for (const char* job : {"job=evaluate", "job=generate", "job=export"})
    EXPECT_THAT(expect_exit(2, trainer(on_base({job, "run.dir=untrained"}, "mos"))).err,
                HasSubstr("untrained/adapter\" holds none\n  set adapter.load to a folder that a training wrote"));
}

TEST_F(Adapters, MergedModelsEvaluateToTheAdaptersLoss) {
  for (const char* method : {"lora", "mos"}) {
    make_base("f32");
    const std::string run = std::string(method) + "-run", exported = std::string(method) + "-export";
    expect_done(trainer(on_base({"run.dir=" + run, "export.merged=true", "export.peft=true"}, method)));
    const double trained = losses(run, "eval").back();
    EXPECT_NEAR(
        evaluate({"full.toml", "job=evaluate", "model.init=pretrained", "model.path=" + run + "/model"}) / trained, 1,
        1e-5);
    expect_done(trainer(on_base(
        {"job=export", "adapter.load=" + run + "/adapter", "run.dir=" + exported, "export.peft=true"}, method)));
    EXPECT_EQ(test::read_file(*this / exported / "model/model.safetensors"),
              test::read_file(*this / run / "model/model.safetensors"));
    for (const std::string& folder : {run, exported}) {
      EXPECT_TRUE(fs::exists(*this / folder / "peft/adapter_config.json"));
      EXPECT_TRUE(fs::exists(*this / folder / "peft/adapter_model.safetensors"));
    }
    EXPECT_EQ(test::read_file(*this / exported / "peft/adapter_model.safetensors"),
              test::read_file(*this / run / "peft/adapter_model.safetensors"));
    EXPECT_TRUE(fs::exists(*this / run / "model/tokenizer.json"));
  }
}

TEST_F(Adapters, TrainOnBasesStoredInSixteenBits) {
  for (const char* dtype : {"bf16", "f16"}) {
    fs::remove_all(*this / "pretrain");
    make_base(dtype);
    const std::string run = std::string("run-") + dtype;
    expect_done(trainer(on_base({"run.dir=" + run, "export.merged=true"}, "mos")));
    EXPECT_LT(losses(run, "eval").back(), losses(run, "eval").front());
    // The merged weights are rounded to the base's type: 8 or 11 bits of mantissa.
    EXPECT_NEAR(evaluate({"full.toml", "job=evaluate", "model.init=pretrained", "model.path=" + run + "/model"}),
                losses(run, "eval").back(), 2e-2);
  }
}

TEST_F(Adapters, FaultsNameWhereTheKeyWasGiven) {
  const auto fault = [&](const Words& more) {
    Words words = {"mos.toml", "train.steps=1"};
    words.insert(words.end(), more.begin(), more.end());
    return expect_exit(2, trainer(words)).err;
  };
  EXPECT_THAT(fault({"adapter.targets=x"}),
              testing::StartsWith("command line: adapter.targets: mos: target 'x' matches none"));
  EXPECT_THAT(fault({"adapter.shards=3"}), testing::StartsWith("command line: adapter.shards: mos: shards=3"));
  EXPECT_THAT(fault({"adapter.private_rank=3"}),
              testing::StartsWith("command line: adapter.private_rank: mos: private=3"));
  EXPECT_THAT(fault({"adapter.equivalent_rank=1", "adapter.private_rank=0", "adapter.rank=9"}),
              testing::StartsWith("command line: mos: adapter.rank=9 needs"));
  EXPECT_THAT(expect_exit(2, trainer({"rps.toml", "train.steps=1", "sharing.pool=99999999"})).err,
              testing::StartsWith("command line: sharing.pool: rps: pool 99,999,999 is larger"));
  EXPECT_THAT(expect_exit(2, trainer({"rps.toml", "train.steps=1", "sharing.min_numel=1000000"})).err,
              testing::StartsWith("command line: sharing.min_numel: rps: no tensor is shared"));
}

TEST_F(Adapters, OfAnotherShapeAreRefused) {
  expect_done(trainer({"mos.toml", "run.dir=run", "train.steps=2"}));
  const test::Ended ended =
      expect_exit(2, trainer({"mos.toml", "run.dir=next", "adapter.load=run/adapter", "adapter.shards=4"}));
  EXPECT_THAT(ended.err, HasSubstr("was saved with shards 2, this run has 4"));
}

class TrainedModels : public Adapters {
 protected:
  const std::string kSaid = "the model that the run trained: run/model\n";
};

TEST_F(TrainedModels, OfTheRunsFolderServeTheOtherJobsOfTheSameRecipe) {
  expect_done(trainer({"full.toml", "run.dir=run"}));
  const double trained = metrics("run").back().at("eval_loss").as_number();
  EXPECT_LT(trained, losses("run", "eval").front());
  const test::Ended ended = expect_done(trainer({"full.toml", "job=evaluate", "run.dir=run"}));
  EXPECT_EQ(ended.err, kSaid);
  EXPECT_EQ(Json::parse(ended.out.substr(ended.out.find('{')), "evaluate").at("loss").as_number(), trained);
  EXPECT_EQ(expect_done(trainer({"full.toml", "job=evaluate", "run.dir=run", "--quiet"})).err, "");

  const Words generate = {"full.toml", "job=generate", "generate.limit=3", "generate.max_new_tokens=16"};
  const auto samples = [&](Words more, const std::string& run) {
    more.insert(more.begin(), generate.begin(), generate.end());
    more.push_back("run.dir=" + run);
    const std::string said = expect_done(trainer(more)).err;
    EXPECT_EQ(said, run == "run" ? kSaid : "");
    return test::read_file(*this / run / "samples.jsonl");
  };
  const std::string of_run = samples({}, "run");
  EXPECT_EQ(of_run, samples({"model.path=run/model", "model.init=pretrained"}, "named"));
  EXPECT_NE(of_run, samples({}, "base-run"));
}

TEST_F(TrainedModels, AreNotOverwrittenByTheBaseModel) {
  expect_done(trainer({"full.toml", "run.dir=run", "train.steps=5"}));
  const std::string weights = saved_bytes("run");
  EXPECT_THAT(expect_exit(2, trainer({"full.toml", "job=export", "run.dir=run"})).err,
              HasSubstr("the model that this run trained is already written, in \"run/model\"\n"));
  EXPECT_EQ(saved_bytes("run"), weights);
}

TEST_F(TrainedModels, ThatWereRoundedSayHowTheyComeOutAsTheyAre) {
  expect_done(trainer({"full.toml", "run.dir=run", "train.steps=2", "model.dtype=bf16"}));
  const Words words = {"full.toml", "job=export", "run.dir=run", "run.resume=run/checkpoints/step-00000002.h5"};
  const auto with = [&](const char* dtype) {
    Words all = words;
    all.emplace_back(dtype);
    return expect_done(trainer(all)).err;
  };
  EXPECT_THAT(with("model.dtype=bf16"),
              HasSubstr("run-2/model: the weights were rounded to bf16; model.dtype=f32 writes them as they are\n"));
  EXPECT_THAT(with("model.dtype=f32"), testing::Not(HasSubstr("rounded")));
}

TEST_F(TrainedModels, AreNotThereBeforeTheTrainingHasEnded) {
  expect_done(trainer({"full.toml", "run.dir=run", "train.steps=4", "checkpoint.every=2"}));
  fs::remove_all(*this / "run/model");
  EXPECT_THAT(fault({"full.toml", "job=evaluate", "run.dir=run"}),
              HasSubstr("run\" has ended, and what it wrote is gone"));
  forget_end("run");
  for (const char* job : {"job=evaluate", "job=generate", "job=export"})
    EXPECT_THAT(expect_exit(2, trainer({"full.toml", job, "run.dir=run"})).err, HasSubstr("run\" has not ended"));
  EXPECT_FALSE(fs::exists(*this / "run/model"));
}

TEST_F(TrainedModels, MergedFromAnAdapterAreNotTheBaseModelOfItsRun) {
  make_base("f32");
  expect_done(trainer(on_base({"run.dir=run", "checkpoint.every=10", "export.merged=true"}, "mos")));
  const std::string weights = saved_bytes("run");
  EXPECT_EQ(evaluate(on_base({"job=evaluate", "run.dir=run", "adapter.method=none"}, "full")),
            losses("run", "eval").front());
  expect_exit(2, trainer(on_base({"job=export", "run.dir=run"}, "full")));
  EXPECT_EQ(saved_bytes("run"), weights);
}

TEST_F(TrainedModels, EvaluateTheSameUnderRanks) {
  TESSERA_NEEDS_MPI();
  expect_done(trainer({"full.toml", "run.dir=run"}));
  const test::Ended ended = expect_done(ranks(3, {"full.toml", "job=evaluate", "run.dir=run"}));
  const Json result = Json::parse(ended.out.substr(ended.out.find('{')), "evaluate");
  EXPECT_NEAR(result.at("loss").as_number() / losses("run", "eval").back(), 1, 1e-9);
  EXPECT_EQ(test::occurrences(ended.err, kSaid), 1);

  const Words words = {"full.toml", "job=evaluate"};
  const test::Command differing = ranks_with({joined(words, {"run.dir=run"}), joined(words, {"run.dir=absent"})});
  EXPECT_THAT(expect_exit(2, differing).err, HasSubstr("the ranks differ in whether run.dir holds a trained model"));
}

TEST_F(Adapters, EvaluateTheSameUnderRanks) {
  TESSERA_NEEDS_MPI();
  expect_done(trainer({"mos.toml", "run.dir=run"}));
  const test::Ended ended = expect_done(ranks(3, {"mos.toml", "job=evaluate", "adapter.load=run/adapter"}));
  const Json result = Json::parse(ended.out.substr(ended.out.find('{')), "evaluate");
  EXPECT_NEAR(result.at("loss").as_number() / losses("run", "eval").back(), 1, 1e-9);
  EXPECT_EQ(test::occurrences(ended.out, "\"loss\""), 1);
}

}  // namespace
}  // namespace tessera
